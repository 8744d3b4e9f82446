import test, {type ExecutionContext} from 'ava';
import {Place} from './history/place.ts';
import {report, runSeed} from './history/seeds.ts';
import {server} from './test-support/start-pipeline.ts';

const SEED = Number(process.env.FRESHET_TEST_SEED ?? 20_261_122);
const HISTORIES = 4;

async function play(t: ExecutionContext, from: number, schemaChanges: boolean): Promise<void> {
  const brokers = server('TEST_KAFKA_BROKERS') ?? '';
  const place = await Place.create({
    pgUrl: server('TEST_PG_URL')!,
    clickhouseUrl: server('TEST_CLICKHOUSE_URL')!,
    brokers,
  });
  t.teardown(() => place.drop());
  for (let seed = from; seed < from + HISTORIES; seed++) {
    const result = await runSeed(place, seed, {kafka: brokers !== '', schemaChanges, mostSteps: 240});
    const {operations, restarts, kills, seconds} = result;
    t.log(
      `seed ${seed}: ${operations} operations, ${restarts} restarts (${kills} by SIGKILL), ${seconds.toFixed(1)} s`,
    );
    t.is(result.differences.length, 0, report(result));
  }
}

test('random histories of rows, stopped and killed on the way: every table equals PostgreSQL and a new snapshot', t =>
  play(t, SEED, false));

test('random histories in which tables change as well, the same way', t => play(t, SEED + 100, true));
