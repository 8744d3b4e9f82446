#!/usr/bin/env node
import {inspect} from 'node:util';
import {Command, InvalidArgumentError} from 'commander';
import {preflight} from './commands/preflight.ts';
import {sql} from './commands/sql.ts';
import {status} from './commands/status.ts';
import {teardown} from './commands/teardown.ts';
import {verifyTables} from './commands/verify.ts';
import {migrateAll, type PipelineOptions} from './context.ts';
import {asPipelineError, PipelineError} from './failures.ts';
import {serveStatus} from './observe/http.ts';
import {createLog, withoutSecrets} from './observe/log.ts';
import {snapshotProgress} from './observe/progress.ts';
import {run, runCapture, runSinkOnly} from './pipeline.ts';
import {loadSettings, settingsHelp} from './settings/settings.ts';
import {clickhouseClient} from './sink/clickhouse.ts';

// kafkajs 2.2.4 starts a timer with a negative time, which is harmless; Node 24 would tell it between the log's lines.
process.removeAllListeners('warning').on('warning', warning => {
  if (warning.name !== 'TimeoutNegativeWarning') console.error(`${warning.name}: ${warning.message}`);
});

const program = new Command('freshet')
  .description('PostgreSQL’s changes, in ClickHouse within a second, exact.')
  .showHelpAfterError('  `freshet --help` lists commands and settings')
  .addHelpText('after', helpOfSettings());

/** Runs a stage until SIGINT or SIGTERM; a second signal ends the process at once. */
function longRunning(name: string, text: string, stage: (options: PipelineOptions) => Promise<void>): void {
  program
    .command(name)
    .description(text)
    .action(async () => {
      const settings = loadSettings(process.env);
      const log = createLog(settings.FRESHET_LOG_LEVEL);
      const stop = new AbortController();
      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        process.on(signal, () => {
          if (stop.signal.aborted) process.exit(130);
          log.info({signal}, 'stopping: what was read is still being written');
          stop.abort();
        });
      }
      // `npm start` holds the other end of this pipe: when it is gone, however it went, this process goes too.
      if (process.env.FRESHET_STACK_CHILD) process.stdin.on('end', () => stop.abort()).resume();
      const client = clickhouseClient(settings);
      let page: {close(): Promise<void>} | undefined;
      try {
        if (settings.FRESHET_HTTP_PORT > 0) page = await serveStatus(client, settings);
        await stage({settings, log, signal: stop.signal, onProgress: snapshotProgress(log)});
      } catch (error) {
        // A server that was still being waited for is no failure of a stop.
        if (!stop.signal.aborted || asPipelineError(error).reaction !== 'retry') throw error;
      } finally {
        await page?.close();
        await client.close();
      }
      process.exit(0); // kafkajs may keep a timer
    });
}

/** Runs something that ends by itself; its number is the exit code. */
const once =
  <T extends unknown[]>(work: (...given: T) => Promise<number>) =>
  async (...given: T): Promise<void> => {
    process.exit(await work(...given));
  };

longRunning('run', 'capture and sink in one process', run);
longRunning('capture', 'PostgreSQL → Kafka (snapshots go to ClickHouse directly)', runCapture);
longRunning('sink', 'Kafka → ClickHouse; start as many as there are partitions', runSinkOnly);

program
  .command('preflight')
  .description('check servers, roles and tables; changes nothing')
  .action(
    once(async () => {
      const settings = loadSettings(process.env);
      return preflight(settings, createLog(settings.FRESHET_LOG_LEVEL));
    }),
  );
program
  .command('migrate')
  .description('apply the SQL of clickhouse/ that is not applied yet')
  .action(
    once(async () => {
      const settings = loadSettings(process.env);
      const client = clickhouseClient(settings);
      const {applied, present, waiting} = await migrateAll(client, settings, createLog('warn'));
      await client.close();
      console.log(`${applied.length} applied, ${present.length} there before`);
      for (const {file, missing} of waiting) console.log(`· ${file} waits for ${missing.join(', ')}`);
      return 0;
    }),
  );
program
  .command('status')
  .description('slot, tables, freshness and what needs attention; exit code 1 where something does')
  .action(once(() => status(loadSettings(process.env))));
program
  .command('verify')
  .description('compare every table by value at a common position; exit code 1: different, 2: not settled')
  .option('--timeout <seconds>', 'how long tables may take to settle', seconds, 120)
  .action(once(({timeout}: {timeout: number}) => verifyTables(loadSettings(process.env), timeout * 1000)));
program
  .command('teardown')
  .description('drop slot and publication, and what was made in Kafka and ClickHouse')
  .option('--keep-data', 'drop the slot and the publication alone', false)
  .option('--yes', 'without this nothing else is dropped', false)
  .action(
    once((options: {keepData: boolean; yes: boolean}) => {
      const settings = loadSettings(process.env);
      return teardown(settings, createLog(settings.FRESHET_LOG_LEVEL), options);
    }),
  );
program
  .command('sql')
  .description('run a query on the views, or open clickhouse-client')
  .argument('[query]')
  .action(once((query: string | undefined) => sql(loadSettings(process.env), query)));
program
  .command('dashboards')
  .description('Grafana dashboards, alerts and provisioning')
  .command('build')
  .description('generate their files')
  .option('--out <folder>', 'where to; the package itself by default')
  .action(
    once(async ({out}: {out?: string}) => {
      // Loaded here: Grafana's SDK takes a third of a second, and nothing else needs it.
      const {writeDashboards} = await import('../dashboards/build.ts');
      for (const file of await writeDashboards(out)) console.log(file);
      return 0;
    }),
  );

try {
  await program.parseAsync();
} catch (thrown) {
  const error = asPipelineError(thrown);
  console.error(withoutSecrets(`freshet: ${error.message}\n  [${error.code}] ${error.hint}`));
  if (!(thrown instanceof PipelineError)) console.error(withoutSecrets(inspect(thrown)));
  process.exit(1);
}

function seconds(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= 0)) throw new InvalidArgumentError('It is a number of seconds.');
  return value;
}

function helpOfSettings(): string {
  const lines = settingsHelp().map(
    ({name, fallback, text}) => `  ${name.padEnd(33)}${text}${fallback ? ` [${fallback}]` : ''}`,
  );
  return `
Settings, from the environment or from the file that FRESHET_CONFIG names (lines of NAME=value);
what is marked (secret) can come from a file whose name is in NAME_FILE:
${lines.join('\n')}
`;
}
