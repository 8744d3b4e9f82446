import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import {run} from './pipeline.ts';
import {caughtUp} from './reconcile/position.ts';
import {verify} from './reconcile/verify.ts';
import {loadSettings} from './settings/settings.ts';
import {chName} from './sink/clickhouse.ts';
import {clientConfig, withClient} from './source/postgres.ts';
import {dropSlot} from './source/slot.ts';
import {pgName, viewName} from './source/table-schema.ts';
import {changes, ddl, insert, type Named, relation} from './test-support/named-tables.ts';
import {NAMES, PLACES} from './test-support/odd-names.ts';
import {makeWorld, startPipeline} from './test-support/start-pipeline.ts';

/** All tables through snapshot and stream, and then emptied. */
async function allArrive(t: ExecutionContext, tables: readonly Named[]): Promise<void> {
  const world = await startPipeline(
    t,
    `CREATE TABLE canary (id int PRIMARY KEY); INSERT INTO canary VALUES (1); ${tables.map(ddl).join('\n')}`,
    {FRESHET_TABLES_INCLUDE: '**,*,*.*', FRESHET_TOPIC_PARTITIONS: '1', FRESHET_FLUSH_MS: '10'},
  );
  await world.caughtUp();
  await world.pg.query(tables.map(changes).join('\n'));
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.deepEqual(
    Object.fromEntries(
      verdicts.map(({table, verdict, rows, differences}) => [table, [verdict, rows.clickhouse, differences]]),
    ),
    Object.fromEntries([
      ['public.canary', ['equal', 1n, []]],
      ...tables.map(of => [`${of.schema}.${of.table}`, ['equal', 6n, []]]),
    ]),
  );
  await world.pg.query(
    `TRUNCATE ${tables.map(relation).join(', ')}; ${tables.map((of, i) => insert(of, 9, 9 + (i % 3))).join('\n')}`,
  );
  await world.caughtUp();
  const views = [
    ['canary', 'id'] as const,
    ...tables.map(of => [viewName(world.settings, of), of.key[0]] as const),
  ];
  const counts = views.map(
    ([view, key], i) =>
      `SELECT ${i} AS i, count(${chName(key)}) AS n FROM ${chName(world.settings.FRESHET_ANALYTICS_DATABASE, view)}`,
  );
  t.deepEqual(
    (await world.query(`SELECT n FROM (${counts.join(' UNION ALL ')}) ORDER BY i`)).map(row => Number(row.n)),
    [1, ...tables.map((_, i) => 1 + (i % 3))],
  );
}

/** Keys whose names are those of the pipeline's own SQL, of the envelope, or of no use without quotes. */
const KEYS: readonly (readonly [string, string])[] = [
  ['key', 'k'],
  ['_key', 't'],
  ['n', 'p'],
  ['after', 'before'],
  ['e', 'count()'],
  [`it's \`"\\`, '漢字 .'],
];

test('Names: of columns, in keys and out of them', t =>
  allArrive(
    t,
    KEYS.map((key, i) => ({
      schema: 'public',
      table: `wide ${i}`,
      key,
      // Turned by one, so that each name has another kind in each table.
      columns: [...NAMES.slice(i), ...NAMES.slice(0, i)].filter(name => !key.includes(name)),
      type: `labels ${i}`,
      labels: NAMES,
    })),
  ));

const LONGEST: Named = {
  schema: 's'.repeat(63),
  table: 't'.repeat(63),
  key: ['a'.repeat(63), '漢'.repeat(21)],
  columns: ['字'.repeat(21)],
  type: 'e'.repeat(63),
  labels: ['漢'.repeat(21)],
};

test('Names: of schemas, tables, types and labels', t =>
  allArrive(t, [
    ...PLACES.map((name, i) => ({
      schema: name,
      table: PLACES[(i + 1) % PLACES.length]!,
      key: ['id', 'name'] as const,
      columns: ['body', name],
      type: `${name}~`,
      labels: [name, ''],
      full: i % 3 === 0,
    })),
    LONGEST,
  ]));

/** Identifiers of up to `length` characters of any plane. */
const identifier = (length: number, without: RegExp): fc.Arbitrary<string> =>
  fc.string({unit: 'binary', minLength: 1, maxLength: length}).filter(name => !without.test(name));
const inKey = identifier(12, /[\0\b\t\n\f\r]/);
const random: fc.Arbitrary<Named> = fc
  .record({
    schema: identifier(7, /[\0\n\r\u2028\u2029/]|^pg_/),
    table: identifier(7, /[\0\n\r\u2028\u2029/]/),
    names: fc.uniqueArray(identifier(15, /\0/), {minLength: 6, maxLength: 6}),
    key: fc.uniqueArray(inKey, {minLength: 2, maxLength: 2}),
    type: identifier(15, /\0/),
    labels: fc.uniqueArray(identifier(15, /\0/), {minLength: 1, maxLength: 4}),
    full: fc.boolean(),
  })
  .filter(({names, key}) => !names.includes('touched') && !names.some(name => key.includes(name)))
  .map(({names, key, ...rest}) => ({...rest, key: [key[0]!, key[1]!] as const, columns: names}));

test('Names: any identifiers', async t => {
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  const tables = fc.uniqueArray(random, {minLength: 8, maxLength: 8, selector: of => of.schema});
  await fc.assert(
    fc.asyncProperty(tables, some => allArrive(t, some)),
    {seed, numRuns: 1, endOnFailure: true},
  );
});

test('Names: of a database', async t => {
  const world = await makeWorld(t, '');
  const {FRESHET_SLOT: slot, FRESHET_PG_URL: at} = world.settings;
  const url = new URL(at);
  url.pathname = `/${encodeURIComponent(`${slot} "it's" a\\b.漢字`)}`;
  await world.pg.query(`CREATE DATABASE ${pgName(decodeURIComponent(url.pathname.slice(1)))}`);
  const settings = loadSettings({...world.environment, FRESHET_PG_URL: url.href});
  const stopper = new AbortController();
  await withClient(clientConfig(settings), async client => {
    await client.query('CREATE TABLE t (id int PRIMARY KEY)');
    const ended = run({settings, log: world.log, signal: stopper.signal});
    t.teardown(async () => {
      stopper.abort();
      await ended;
      await withClient(clientConfig(world.settings), async admin => {
        await dropSlot(admin, slot);
        await admin.query(`DROP DATABASE ${pgName(client.database!)} WITH (FORCE)`);
      });
    });
    await Promise.race([caughtUp(world.ch, settings), ended]);
    await client.query('INSERT INTO t VALUES (1)');
    await Promise.race([caughtUp(world.ch, settings), ended]);
  });
  t.deepEqual(await world.query('SELECT * FROM {an}.t'), [{id: 1}]);
});

/** Settings that take names, and the names they take. */
const SETTINGS = {
  FRESHET_SLOT: /^[a-z_][a-z0-9_]{0,62}$/,
  FRESHET_PUBLICATION: /^[a-z_][a-z0-9_]{0,62}$/,
  FRESHET_CLICKHOUSE_DATABASE: /^[a-z_][a-z0-9_]{0,62}$/,
  FRESHET_ANALYTICS_DATABASE: /^[a-z_][a-z0-9_]{0,62}$/,
  FRESHET_TOPIC_PREFIX: /^[A-Za-z0-9._-]{1,100}$/,
} as const;

for (const [setting, taken] of Object.entries(SETTINGS)) {
  test(`Names: ${setting} takes what needs no quotes anywhere, and names what it refuses`, t => {
    const given = (name: string) => ({
      FRESHET_PG_URL: 'postgres://x',
      FRESHET_TRANSPORT: 'direct',
      [setting]: name,
    });
    for (const name of NAMES) {
      if (taken.test(name)) t.is(Reflect.get(loadSettings(given(name)), setting), name);
      else {
        const error = t.throws(() => loadSettings(given(name)));
        t.like(error, {code: 'settings.invalid'});
        t.true(error!.message.startsWith(`${setting}`), error!.message);
      }
    }
  });
}
