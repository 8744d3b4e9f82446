import {kafkaClient} from '../../cdc/kafka/client.ts';
import {caughtUp} from '../../cdc/reconcile/position.ts';
import {verify} from '../../cdc/reconcile/verify.ts';
import {chName} from '../../cdc/sink/clickhouse.ts';
import {quietLog} from '../../cdc/test-support/quiet-log.ts';
import {endChild} from '../stack/end-process.ts';
import {arrivedIn, type Ground, type Working, type Written, walsender} from './ground.ts';
import type {Run} from './world.ts';

const READY_MS = 900_000;

/** Starts commands of Freshet, each in a process of its own. */
export async function startFreshet(ground: Ground, commands: readonly string[]): Promise<Working> {
  const {client, settings, freshet} = ground.world;
  const runs: {command: string; run: Run}[] = [];
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  let stopping = false;
  const start = (command: string): void => {
    const run = freshet(command);
    runs.push({command, run});
    run.ended.then(code => {
      if (!stopping) failed.reject(new Error(`freshet ${command} ended with ${code}`));
    });
  };
  for (const command of commands) start(command);
  const [cdc, analytics] = [settings.FRESHET_CLICKHOUSE_DATABASE, settings.FRESHET_ANALYTICS_DATABASE];
  const current = (table: string): string => chName(analytics, table);
  const caught = async (): Promise<void> => {
    for (const since = Date.now(); ; )
      try {
        return void (await caughtUp(client, settings, READY_MS));
      } catch (error) {
        // Its tables are not made yet.
        if (Date.now() - since > READY_MS) throw error;
        await new Promise(resolve => setTimeout(resolve, 100));
      }
  };
  return {
    processes: Object.fromEntries(
      [...Map.groupBy(runs, ({command}) => (command === 'run' ? 'freshet' : command))].map(
        ([stage, group]) => [stage, group.map(({run}) => run.child.pid ?? 0)],
      ),
    ),
    failed: failed.promise,
    ready: caught,
    reader: () => walsender(ground),
    arrived: arrivedIn(ground, current),
    target: {
      current,
      rows: table => chName(cdc, `public__${table}`),
      databases: [cdc],
    },
    async verify() {
      if (!commands.some(command => ['run', 'sink'].includes(command))) start('sink');
      await caught();
      const wrong = (await verify({client, settings})).filter(({verdict}) => verdict !== 'equal');
      if (wrong.length > 0)
        throw new Error(`verify: ${wrong.map(({table, verdict}) => `${table} is ${verdict}`).join(', ')}`);
    },
    async stop() {
      stopping = true;
      await Promise.all(runs.map(({run}) => endChild(run.child, run.ended)));
    },
  };
}

/** Capture alone: a change has arrived when Kafka has acknowledged it. */
export async function startCapture(ground: Ground): Promise<Working> {
  const {settings} = ground.world;
  const {target: _, ...working} = await startFreshet(ground, ['capture']);
  const admin = kafkaClient(settings, quietLog()).admin();
  await admin.connect();
  const topics = ground.workload.tables.map(table => `${settings.FRESHET_TOPIC_PREFIX}.public.${table}`);
  return {
    ...working,
    async ready() {
      while (!(await walsender(ground))) await new Promise(resolve => setTimeout(resolve, 100));
    },
    async arrived({changes}: Written) {
      let there = 0;
      for (const topic of topics)
        for (const {high} of await admin.fetchTopicOffsets(topic)) there += Number(high);
      return there >= changes;
    },
    async stop() {
      await admin.disconnect();
      await working.stop();
    },
  };
}
