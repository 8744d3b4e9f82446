import {once} from 'node:events';
import {createServer, request} from 'node:http';
import type {AddressInfo} from 'node:net';
import test from 'ava';
import {startProxy} from '../test-support/proxy.ts';
import {type Running, type Scope, server, startPipeline, transport} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {command} from './clickhouse.ts';

const DDL = 'CREATE TABLE a (id int PRIMARY KEY, v int)';
/** A request that inserts into the target of table a: its URL holds the statement. */
const INSERT = /query=INSERT[^ ]*public__a%60/;

/** The whole pipeline, with a network in front of ClickHouse that can be faulty. */
async function withNetwork(t: Parameters<typeof startProxy>[0], overrides: Record<string, string> = {}) {
  const network = await startProxy(t, server('TEST_CLICKHOUSE_URL')!);
  const world = await startPipeline(t, DDL, {FRESHET_CLICKHOUSE_URL: network.url, ...overrides});
  await world.caughtUp();
  return {network, world};
}

async function same({pg, query}: Running): Promise<[unknown, unknown]> {
  return [
    await query('SELECT id, v FROM {an}.a ORDER BY id'),
    (await pg.query('SELECT * FROM a ORDER BY id')).rows,
  ];
}
const told = ({log}: Running, code: string): number =>
  log.lines.filter(line => line.startsWith('warn insert into public.a') && line.includes(code)).length;

for (const fault of ['lose answer', 'cut'] as const) {
  test(`R12 O5 ${fault === 'cut' ? 'the connection breaks before an insert arrives' : 'an insert is done, but its answer gets lost'}: it is sent again, and counts once`, async t => {
    const {network, world} = await withNetwork(t);
    const caught = network.on(INSERT, fault, 3);
    await world.pg.query('INSERT INTO a SELECT i, i FROM generate_series(1, 100) i');
    await world.pg.query('UPDATE a SET v = -v WHERE id % 3 = 0; DELETE FROM a WHERE id % 5 = 0');
    await world.caughtUp();
    t.is(caught.count, 3);
    t.is(told(world, 'ch.unavailable'), 3);
    t.deepEqual(...(await same(world)));
  });
}

/** Settings that make ClickHouse itself refuse an insert for want of room or time. */
const REFUSALS: Readonly<Record<string, readonly [code: string, settings: string]>> = {
  'O5 no memory (241)': ['ch.overloaded', 'max_memory_usage=1&max_untracked_memory=1'],
  'O5 no time (159)': ['ch.unavailable', 'max_execution_time=0.000001&timeout_overflow_mode=throw'],
};
for (const [what, [code, settings]] of Object.entries(REFUSALS)) {
  test(`${what}: the insert waits and is sent again`, async t => {
    const {network, world} = await withNetwork(t);
    const caught = network.on(
      INSERT,
      request => request.replace('async_insert=0', `async_insert=0&${settings}`),
      2,
    );
    await world.pg.query('INSERT INTO a SELECT i, i FROM generate_series(1, 100) i');
    await world.caughtUp();
    t.is(caught.count, 2);
    t.is(told(world, code), 2, world.log.lines.join('\n'));
    t.deepEqual(...(await same(world)));
  });
}

test('O5 somebody kills the query of an insert (394): it is sent again', async t => {
  const world = await startPipeline(t, DDL);
  const {pg, ch, settings, query} = world;
  await world.caughtUp();
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__a`;
  await command(ch, `ALTER TABLE ${target} ADD CONSTRAINT slow CHECK sleepEachRow(1) = 0`);
  await pg.query('INSERT INTO a VALUES (1, 1), (2, 2)');
  const kill = `KILL QUERY WHERE query LIKE 'INSERT INTO %{cdc}%public__a%' SYNC`;
  await until(async () => (await query(kill)).length > 0);
  await world.caughtUp();
  t.is(told(world, 'ch.unavailable'), 1, world.log.lines.join('\n'));
  t.deepEqual(...(await same(world)));
});

/** In front of ClickHouse; `down` holds what it answers to inserts while it knows no server. */
async function loadBalancer(t: Scope): Promise<{url: string; down: number[]}> {
  const down: number[] = [];
  const listener = createServer((asked, answer) => {
    const status = asked.url?.includes('INSERT') ? down.shift() : undefined;
    if (status) {
      asked.resume();
      answer
        .writeHead(status, {'content-type': 'text/html'})
        .end(`<html><h1>${status} no server</h1></html>`);
      return;
    }
    const {method, headers, url = ''} = asked;
    const passed = request(new URL(url, server('TEST_CLICKHOUSE_URL')), {method, headers}, given => {
      answer.writeHead(given.statusCode!, given.headers);
      given.pipe(answer);
    });
    passed.on('error', () => answer.destroy());
    asked.pipe(passed);
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.teardown(() => {
    listener.close();
    listener.closeAllConnections();
  });
  return {url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`, down};
}

test('O5 a load balancer without a server answers in its own words: the insert is sent again', async t => {
  const balancer = await loadBalancer(t);
  const world = await startPipeline(t, DDL, {FRESHET_CLICKHOUSE_URL: balancer.url});
  await world.caughtUp();
  balancer.down.push(502, 503, 504);
  await world.pg.query('INSERT INTO a SELECT i, i FROM generate_series(1, 100) i');
  await world.caughtUp();
  t.deepEqual(balancer.down, []);
  t.true(world.log.lines.some(line => line.startsWith('warn') && line.includes('no server')));
  t.deepEqual(...(await same(world)));
});

test('O5 too many parts (252): the insert waits until there are fewer, and following ones behind it', async t => {
  const {world} = await withNetwork(t);
  const {pg, ch, settings} = world;
  const target = `${settings.FRESHET_CLICKHOUSE_DATABASE}.public__a`;
  await command(ch, `SYSTEM STOP MERGES ${target}`);
  await command(
    ch,
    `ALTER TABLE ${target} MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 1`,
  );
  await pg.query('INSERT INTO a VALUES (1, 1)');
  await world.caughtUp();
  await pg.query('INSERT INTO a VALUES (2, 2); UPDATE a SET v = 10 WHERE id = 1');
  await until(() => told(world, 'ch.overloaded') > 1);
  t.deepEqual(await world.query('SELECT id, v FROM {an}.a'), [{id: 1, v: 1}]);
  await command(ch, `ALTER TABLE ${target} RESET SETTING parts_to_delay_insert, parts_to_throw_insert`);
  await world.caughtUp();
  t.deepEqual(...(await same(world)));
});

test('S14 an insert is answered only when the source has hung up and was connected again', async t => {
  const {network, world} = await withNetwork(t);
  const {pg, settings} = world;
  const caught = network.on(INSERT, 'hold answer');
  await pg.query('INSERT INTO a VALUES (1, 1), (2, 2); UPDATE a SET v = 3 WHERE id = 1');
  await caught.times(1);
  const reader = async (): Promise<number | null> =>
    (
      await pg.query('SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1', [
        settings.FRESHET_SLOT,
      ])
    ).rows[0].active_pid;
  const before = await reader();
  await pg.query('SELECT pg_terminate_backend($1)', [before]);
  await pg.query('UPDATE a SET v = 4 WHERE id = 1; DELETE FROM a WHERE id = 2; INSERT INTO a VALUES (5, 5)');
  // Without Kafka capture ends with its sink, which waits for the answer.
  if (transport() === 'kafka') await until(async () => ![null, before].includes(await reader()));
  caught.release();
  await world.caughtUp();
  t.deepEqual(...(await same(world)));
});

test('S15 a stop waits for the insert under way, then acknowledges, then closes the slot', async t => {
  const {network, world} = await withNetwork(t);
  const {pg, settings, query} = world;
  const caught = network.on(INSERT, 'hold');
  await pg.query('INSERT INTO a VALUES (1, 1)');
  await caught.times(1);
  let ended = false;
  const stopping = world.stop().then(() => {
    ended = true;
  });
  await until(async () => {
    const {rows: slots} = await pg.query('SELECT active FROM pg_replication_slots WHERE slot_name = $1', [
      settings.FRESHET_SLOT,
    ]);
    return transport() === 'direct' || !slots[0].active;
  });
  t.false(ended);
  t.deepEqual(await query('SELECT id FROM {an}.a'), []);
  caught.release();
  await stopping;
  t.deepEqual(await query('SELECT id FROM {an}.a'), [{id: 1}]);
  const {rows: left} = await pg.query(
    `SELECT FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', $2)
     WHERE get_byte(data, 0) = ascii('I')`,
    [settings.FRESHET_SLOT, settings.FRESHET_PUBLICATION],
  );
  t.deepEqual(left, []);
  // The offsets were committed too: nothing is inserted a second time.
  world.start();
  await world.caughtUp();
  t.is(caught.count, 1);
});
