import test from 'ava';
import {startProxy} from '../test-support/proxy.ts';
import {server, startPipeline} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {Batch} from './batch.ts';
import {DirectTransport} from './direct.ts';

test('direct: a table whose insert takes long holds up no other, but nothing behind it is acknowledged', async t => {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)',
    {FRESHET_TRANSPORT: 'direct', FRESHET_CLICKHOUSE_URL: network.url},
  );
  await world.caughtUp();
  const countOf = async (table: string): Promise<number> =>
    Number((await world.query(`SELECT count() AS n FROM {an}.${table}`))[0]?.n);
  const acknowledged = async (lsn: string): Promise<boolean> => {
    const {rows} = await world.pg.query(
      'SELECT confirmed_flush_lsn >= $1::pg_lsn AS passed FROM pg_replication_slots WHERE slot_name = $2',
      [lsn, world.settings.FRESHET_SLOT],
    );
    return rows[0].passed;
  };
  const insert = async (table: string, id: number): Promise<string> => {
    await world.pg.query(`INSERT INTO ${table} VALUES (${id})`);
    return (await world.pg.query('SELECT pg_current_wal_lsn() AS lsn')).rows[0].lsn;
  };

  const held = network.on(/query=INSERT[^ ]*public__a%60/, 'hold');
  await insert('a', 1);
  await held.times(1);
  for (let id = 1; id <= 5; id++) {
    await insert('b', id);
    await until(async () => (await countOf('b')) === id);
  }
  const behind = await insert('b', 6);
  await until(async () => (await countOf('b')) === 6);
  // Each second the server is told what may be acknowledged.
  await world.pg.query('SELECT pg_sleep(3)');
  t.false(await acknowledged(behind));
  t.is(await countOf('a'), 0);

  held.release();
  await world.caughtUp();
  t.is(await countOf('a'), 1);
  await until(() => acknowledged(behind));
  await world.stop();
  t.is(await world.ended(), null);
});

test('direct: what is handed over to a sink that ends before it takes anything is refused', async t => {
  const ended = new DirectTransport();
  const handed = ended.publish(new Batch());
  await ended.close();
  await t.throwsAsync(handed, {code: 'ch.unavailable'});
  await t.throwsAsync(ended.publish(new Batch()), {code: 'ch.unavailable'});
});
