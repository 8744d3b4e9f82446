import test from 'ava';
import {HEADER} from './kafka/message.ts';
import {metrics} from './observe/metrics.ts';
import {SegmentQueue} from './sink/segments.ts';
import {startProxy} from './test-support/proxy.ts';
import {type Running, server, startPipeline} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

const MIB = 1 << 20;
const DDL = `CREATE TABLE a (id int PRIMARY KEY, v int NOT NULL, filler text NOT NULL);
  ALTER TABLE a ALTER filler SET STORAGE EXTERNAL`;
const sums = async ({pg, query}: Running): Promise<[unknown, unknown]> => [
  await query(
    'SELECT toInt32(count()) AS n, toInt32(sum(v)) AS v, toInt32(sum(length(filler))) AS long FROM {an}.a',
  ),
  (await pg.query('SELECT count(*)::int AS n, sum(v)::int AS v, sum(length(filler))::int AS long FROM a'))
    .rows,
];

/** What the stages of this process hold. */
async function held(): Promise<number> {
  const gauges = [metrics.captureBufferBytes, metrics.sinkBufferBytes];
  const read = await Promise.all(gauges.map(gauge => gauge.get()));
  return read.reduce((sum, {values}) => sum + (values[0]?.value ?? 0), 0);
}

test.serial(
  'ClickHouse stands still under load: what all stages hold stays near the budget, and all arrives afterwards',
  async t => {
    const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
    const world = await startPipeline(t, DDL, {
      FRESHET_CLICKHOUSE_URL: network.url,
      FRESHET_BATCH_BYTES: String(MIB / 4),
      FRESHET_BUFFER_BYTES: String(2 * MIB),
    });
    await world.caughtUp();
    const standing = network.on(/query=INSERT[^ ]*public__a%60/, 'hold');
    let most = 0;
    const watch = setInterval(async () => {
      most = Math.max(most, await held());
    }, 5);
    t.teardown(() => clearInterval(watch));
    for (let i = 0; i < 20; i++) {
      await world.pg.query(
        `INSERT INTO a SELECT n, n, repeat('x', 10000) FROM generate_series(${i * 150}, ${i * 150 + 149}) n`,
      );
    }
    await until(async () => (await held()) > 2 * MIB);
    standing.release();
    await world.caughtUp();
    t.deepEqual(...(await sums(world)));
    t.log(`${(most / MIB).toFixed(1)} MiB at the most, of 30 that were written`);
    // Above it are a batch of each stage, and what the consumer had fetched.
    t.true(most < 4 * MIB, String(most));
    await world.stop();
    t.is(await held(), 0);
  },
);

test.serial('a transaction and a batch that are larger than the budget do not stand still', async t => {
  const world = await startPipeline(t, DDL, {
    FRESHET_BATCH_BYTES: String(64 * MIB),
    FRESHET_BUFFER_BYTES: String(MIB),
  });
  await world.caughtUp();
  await world.pg.query(`INSERT INTO a SELECT n, n, repeat('x', 20000) FROM generate_series(1, 400) n`);
  await world.pg.query(`INSERT INTO a VALUES (1000, 1, repeat('x', 3000000))`);
  await world.caughtUp();
  t.deepEqual(...(await sums(world)));
});

test.serial(
  'rows of a snapshot with values that ClickHouse cannot hold fill a batch like all others',
  async t => {
    const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
    const inserts = network.on(/query=INSERT[^ ]*public__r%60/, request => request);
    const world = await startPipeline(
      t,
      `CREATE TABLE r (id int PRIMARY KEY, v numeric(9,2), note text);
     INSERT INTO r SELECT n, 'NaN', repeat('x', 500) FROM generate_series(1, 2000) n`,
      {FRESHET_CLICKHOUSE_URL: network.url, FRESHET_BATCH_BYTES: String(MIB / 4)},
    );
    await world.caughtUp();
    t.deepEqual(await world.query('SELECT toInt32(count()) AS n, toInt32(count(v)) AS v FROM {an}.r'), [
      {n: 2000, v: 0},
    ]);
    t.true(inserts.count >= 4, String(inserts.count)); // three MiB, with what is around the rows
  },
);

test('messages that hold no row count too: a TRUNCATE for each partition', t => {
  const queue = new SegmentQueue(MIB);
  const value = Buffer.from('{"before":null,"after":null}');
  const headers = {
    [HEADER.horizon]: Buffer.from('1'),
    [HEADER.row]: Buffer.from('"_version":"1","_is_deleted":1,"_commit_ts":1}'),
    [HEADER.schema]: Buffer.from('s'),
  };
  let grown = 0;
  for (let offset = 0n; offset < 100n; offset++) grown += queue.add({offset, key: null, value, headers}, 0);
  t.true(grown >= 100 * 1024, String(grown));
  let freed = 0;
  for (let segment = queue.shift(); segment; segment = queue.shift()) freed += segment.held;
  t.is(freed, grown);
});
