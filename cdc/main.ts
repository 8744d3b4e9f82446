#!/usr/bin/env node
import {inspect} from 'node:util';
import {setFlagsFromString} from 'node:v8';
import {Command, InvalidArgumentError} from 'commander';
import {dropDeadLetters, listDeadLetters, retryDeadLetters} from './commands/dead-letter.ts';
import {migrateApply, migrateDrop, migratePlan, migrateRollback, migrateStatus} from './commands/migrate.ts';
import {preflight} from './commands/preflight.ts';
import {resync} from './commands/resync.ts';
import {sql} from './commands/sql.ts';
import {status} from './commands/status.ts';
import {teardown} from './commands/teardown.ts';
import {triggers} from './commands/triggers.ts';
import {verifyTables, verifyViews} from './commands/verify.ts';
import type {PipelineOptions} from './context.ts';
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

/** A stop takes no longer, whichever server does not answer: supervisors (Kubernetes, 30 s) would kill it then. */
const STOP_MS = 25_000;

/** Ctrl-C comes several times at once: from the terminal to the whole group, and from npm, which passes it on. */
const ONE_SIGNAL_MS = 500;

/** Runs a stage until SIGINT or SIGTERM; a second signal, if it comes later, ends the process at once. */
function longRunning(name: string, text: string, stage: (options: PipelineOptions) => Promise<void>): void {
  program
    .command(name)
    .description(text)
    .action(async () => {
      // What is young when a large transaction comes lives for a second: V8 would take 128 MiB for it and keep them.
      setFlagsFromString('--semi-space-growth-factor=1');
      const settings = loadSettings(process.env);
      const log = createLog(settings.FRESHET_LOG_LEVEL);
      const stop = new AbortController();
      let stoppedAt = 0;
      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        process.on(signal, () => {
          if (stop.signal.aborted) {
            if (performance.now() - stoppedAt > ONE_SIGNAL_MS) process.exit(130);
            return;
          }
          stoppedAt = performance.now();
          log.info({signal}, 'stopping: what was read is still being written');
          stop.abort();
          setTimeout(() => {
            log.error({}, `not all was written in ${STOP_MS / 1000} s: the next start reads it again`);
            process.exit(1);
          }, STOP_MS).unref();
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
const migration = program
  .command('migrate')
  .description('apply the SQL of clickhouse/ that is not applied yet')
  .option('--anew', 'drop rollups and views of another time zone or currency, to be filled anew', false)
  .action(once((options: {anew: boolean}) => migrateApply(loadSettings(process.env), options)));
migration
  .command('apply')
  .description('the same')
  .option('--anew', 'the same', false)
  .action(once((options: {anew: boolean}) => migrateApply(loadSettings(process.env), options)));
migration
  .command('plan')
  .description('say what would be applied, and what waits for what')
  .action(once(() => migratePlan(loadSettings(process.env))));
migration
  .command('status')
  .description('which version each view shows')
  .action(once(() => migrateStatus(loadSettings(process.env))));
migration
  .command('rollback')
  .description('have a view show the version before, until it is sent to its newest one again')
  .argument('<view>', 'a stable name such as daily_sales_summary')
  .option('--to <version>', 'this version', version)
  .action(once((name: string, {to}: {to?: number}) => migrateRollback(loadSettings(process.env), name, to)));
migration
  .command('drop')
  .description('drop a version of a view that no view and no dashboard reads')
  .argument('<version>', 'such as daily_sales_summary_v1')
  .action(once((object: string) => migrateDrop(loadSettings(process.env), object)));
program
  .command('status')
  .description('slot, tables, freshness and what needs attention; exit code 1 where something does')
  .action(once(() => status(loadSettings(process.env))));
program
  .command('verify')
  .description('compare every table by value at a common position; exit code 1: different, 2: not settled')
  .option('--timeout <seconds>', 'how long rows may take to settle', seconds, 120)
  .option('--repair', 'read rows that differ again from PostgreSQL, and write them', false)
  .option('--views', 'compare what the views read with what FINAL says, instead of tables', false)
  .action(
    once(({timeout, repair, views}: {timeout: number; repair: boolean; views: boolean}) => {
      const settings = loadSettings(process.env);
      return views
        ? verifyViews(settings, {repair})
        : verifyTables(settings, {timeoutMs: timeout * 1000, repair});
    }),
  );
program
  .command('resync')
  .description('have the running pipeline read tables again, beside the stream')
  .argument('<table...>', "names such as public.orders, or patterns such as 'public.*'")
  .option('--wait', 'return when they are read', false)
  .action(
    once((tables: string[], options: {wait: boolean}) => resync(loadSettings(process.env), tables, options)),
  );
const deadLetter = program
  .command('dead-letter')
  .description('changes that could not be applied: what is parked or incomplete because of them');
deadLetter
  .command('list')
  .description('exit code 1 where there are open ones')
  .argument('[table...]', "names such as public.orders, or patterns such as 'public.*'")
  .action(once((tables: string[]) => listDeadLetters(loadSettings(process.env), tables)));
for (const [name, text, work] of [
  ['retry', 'apply them at their own versions, and have parked tables go on', retryDeadLetters],
  ['drop', 'give them up; a table that is parked at one goes on behind it', dropDeadLetters],
] as const) {
  deadLetter
    .command(name)
    .description(text)
    .argument('<table...>', 'as for list')
    .option('--place <place...>', 'only these, as list shows them', [])
    .action(
      once((tables: string[], {place}: {place: string[]}) => work(loadSettings(process.env), tables, place)),
    );
}
program
  .command('triggers')
  .description('print the SQL of the event triggers, for a superuser to run')
  .action(once(() => triggers(loadSettings(process.env))));
program
  .command('teardown')
  .description('drop slot, publication and event triggers, and what was made in Kafka and ClickHouse')
  .option('--keep-data', 'leave what is in Kafka and ClickHouse', false)
  .option('--yes', 'without this nothing else is dropped', false)
  .action(
    once((options: {keepData: boolean; yes: boolean}) => {
      const settings = loadSettings(process.env);
      return teardown(settings, createLog(settings.FRESHET_LOG_LEVEL), options);
    }),
  );
program
  .command('sql')
  .description('run a query on the views, or open clickhouse-client; neither writes')
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
      // No server is asked, so none need be named.
      const nowhere = {FRESHET_PG_URL: 'postgres://localhost/none', FRESHET_TRANSPORT: 'direct'};
      const settings = loadSettings({...nowhere, ...process.env});
      const of = {
        database: settings.FRESHET_ANALYTICS_DATABASE,
        currency: settings.FRESHET_CURRENCY,
        timeZone: settings.FRESHET_TIME_ZONE,
      };
      for (const file of await writeDashboards(out, of)) console.log(file);
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

function version(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('It is a number, such as 1.');
  return Number(text);
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
