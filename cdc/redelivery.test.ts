import test from 'ava';
import {command} from './sink/clickhouse.ts';
import {keepRunning} from './test-support/command-line.ts';
import {makeWorld, transport, type World} from './test-support/start-pipeline.ts';

/**
 * Tables that materialized views of one's own fill at insert. The first is as everybody writes it at first; the others
 * keep what is the same however often a row comes: its newest image, or each version once.
 */
const DERIVED = [
  `TABLE naive (total Int64) ENGINE = SummingMergeTree ORDER BY tuple()`,
  `MATERIALIZED VIEW naive_mv TO {cdc}.naive AS SELECT toInt64(amount) AS total FROM {cdc}.public__entries`,
  `TABLE newest (id Int32, grp Int32, amount Int32, _version UInt128, _is_deleted UInt8)
     ENGINE = ReplacingMergeTree(_version, _is_deleted) ORDER BY id`,
  `MATERIALIZED VIEW newest_mv TO {cdc}.newest AS SELECT id, grp, amount, _version, _is_deleted FROM {cdc}.public__stock`,
  `TABLE states (id Int32, amount AggregateFunction(argMax, Int32, UInt128), deleted AggregateFunction(argMax, UInt8, UInt128),
     changes AggregateFunction(uniqExact, UInt128)) ENGINE = AggregatingMergeTree ORDER BY id`,
  `MATERIALIZED VIEW states_mv TO {cdc}.states AS SELECT id, argMaxState(amount, _version) AS amount,
     argMaxState(_is_deleted, _version) AS deleted, uniqExactState(_version) AS changes FROM {cdc}.public__stock GROUP BY id`,
];

const CHANGES = [
  'INSERT INTO entries SELECT n, n FROM generate_series(1, 400) n',
  'INSERT INTO stock SELECT n, n % 7, n FROM generate_series(1, 400) n',
  'UPDATE stock SET amount = amount + 1000 WHERE id % 3 = 0',
  'UPDATE stock SET grp = grp + 1 WHERE id % 4 = 0',
  'DELETE FROM stock WHERE id % 5 = 0',
  'UPDATE stock SET id = id + 1000 WHERE id % 11 = 0',
];

const one = async ({query}: World, sql: string): Promise<unknown> => (await query(sql))[0];

test('killed between insert and offset commit: what was inserted comes again, and views that go by versions do not count it twice', async t => {
  const world = await makeWorld(
    t,
    `CREATE TABLE entries (id int PRIMARY KEY, amount int NOT NULL);
     CREATE TABLE stock (id int PRIMARY KEY, grp int NOT NULL, amount int NOT NULL)`,
    {FRESHET_KAFKA_SESSION_MS: '6000'},
  );
  const {pg, query, environment, settings} = world;
  const first = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  t.is(await first.stop(), 0);
  for (const sql of DERIVED) {
    await command(
      world.ch,
      `CREATE ${sql}`
        .replaceAll('{cdc}', settings.FRESHET_CLICKHOUSE_DATABASE)
        .replace(/ (TABLE|VIEW) /, ` $1 ${settings.FRESHET_CLICKHOUSE_DATABASE}.`),
    );
  }
  for (const sql of CHANGES) await pg.query(sql);

  // All is inserted, and nothing of it is committed: the process dies each time it would be.
  const place = transport() === 'kafka' ? 'sink.before_commit' : 'capture.before_ack';
  const inserted = async (): Promise<number> =>
    Number((await query('SELECT count() AS n FROM {cdc}.public__stock'))[0]!.n);
  let deliveries = 0;
  while (deliveries < 3) {
    const dying = keepRunning(t, {...environment, FRESHET_FAILPOINT: `${place}:1`}, ['run']);
    t.is(await dying.died(), 'SIGKILL', dying.log());
    if ((await inserted()) > 0) deliveries += 1;
  }
  const last = keepRunning(t, environment, ['run']);
  await world.caughtUp();
  t.is(await last.stop(), 0, last.log());

  const {rows: stock} = await pg.query('SELECT * FROM stock ORDER BY id');
  t.deepEqual(await query('SELECT * FROM {an}.stock ORDER BY id'), stock);
  const {rows: entries} = await pg.query('SELECT * FROM entries ORDER BY id');
  t.deepEqual(await query('SELECT * FROM {an}.entries ORDER BY id'), entries);

  // The newest image of each row, as a table and as states.
  t.deepEqual(await query('SELECT id, grp, amount FROM {cdc}.newest FINAL ORDER BY id'), stock);
  t.deepEqual(
    await query(
      `SELECT id, argMaxMerge(amount) AS amount FROM {cdc}.states GROUP BY id HAVING argMaxMerge(deleted) = 0 ORDER BY id`,
    ),
    stock.map(({id, amount}) => ({id, amount})),
  );
  // Each change once, a changed key being two: of 400 rows, so many were changed, moved or deleted.
  const kept = (n: number): boolean => n % 5 !== 0;
  const ids = Array.from({length: 400}, (_, i) => i + 1);
  const count = (which: (id: number) => boolean): number => ids.filter(which).length;
  const changes =
    400 +
    count(id => id % 3 === 0) +
    count(id => id % 4 === 0) +
    count(id => !kept(id)) +
    2 * count(id => kept(id) && id % 11 === 0);
  t.deepEqual(
    await one(
      world,
      'SELECT toInt32(sum(n)) AS n FROM (SELECT uniqExactMerge(changes) AS n FROM {cdc}.states GROUP BY id)',
    ),
    {n: changes},
  );

  // Rows that are never changed would be safe to add up, were they never delivered twice.
  const truth = (400 * 401) / 2;
  const {total} = (await query('SELECT toInt32(sum(total)) AS total FROM {cdc}.naive'))[0]!;
  t.true(Number(total) > truth, `${total} of ${truth}: nothing was delivered twice, so nothing was shown`);
});
