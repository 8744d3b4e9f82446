import {randomBytes} from 'node:crypto';
import test from 'ava';
import {skip} from '../scripts/stack/skip.ts';
import {plans} from './chaos/faults.ts';
import {isGood, runPlan} from './chaos/run.ts';
import {Target} from './history/place.ts';
import {server, transport} from './test-support/start-pipeline.ts';

const SEED = Number(process.env.FRESHET_TEST_SEED ?? 20_261_128);

/** A few of the runs of `npm run chaos`: of each kind of fault, before each server, in each phase, one. */
const SELECTION = [
  {fault: 'refuse', server: 'postgres', phase: 'start'},
  {fault: 'lose answer', server: 'clickhouse', phase: 'snapshot'},
  {fault: 'cut', server: 'kafka', phase: 'streaming'},
  {fault: 'forget', server: 'kafka', phase: 'shutdown'},
  {fault: 'SIGKILL of a sink', server: 'pipeline', phase: 'DDL'},
  {fault: 'clock stepped back', server: 'pipeline', phase: 'streaming'},
];

test('a few faults of `npm run chaos`: no row is lost, none invented, and each is recovered from', async t => {
  if (transport() !== 'kafka') return skip(t, 'Kafka is not installed here');
  const servers = {
    pgUrl: server('TEST_PG_URL')!,
    clickhouseUrl: server('TEST_CLICKHOUSE_URL')!,
    brokers: server('TEST_KAFKA_BROKERS')!,
  };
  const selected = SELECTION.map(
    wanted => plans(SEED, wanted).find(({fault}) => fault.name === wanted.fault)!,
  );
  const job = async (): Promise<void> => {
    const target = await Target.create(servers.clickhouseUrl, `x${randomBytes(4).toString('hex')}`);
    for (let plan = selected.shift(); plan; plan = selected.shift()) {
      const {fault, phase, server} = plan;
      const result = await runPlan({servers, target}, plan, {downMs: 0, silenceMs: 10_000});
      const {recovered, lost, invented, problems, log} = result;
      const told = `${fault.name}, ${server}, ${phase.name}, seed ${SEED}`;
      t.log(`${told}: recovered after ${recovered?.toFixed(1)} s`);
      t.true(isGood(result), `${told}: ${lost} lost, ${invented} invented; ${problems.join('; ')}\n${log}`);
    }
    await target.drop();
  };
  await Promise.all([job(), job()]);
});
