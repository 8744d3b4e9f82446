import test from 'ava';
import {verify} from './reconcile/verify.ts';
import {clientConfig, withClient} from './source/postgres.ts';
import {preflight} from './source/preflight.ts';
import {makeWorld, startPipeline} from './test-support/start-pipeline.ts';

/** What has no place in ClickHouse under its name is refused, naming it; `says` is in the message. */
const REFUSED: Readonly<
  Record<string, {readonly ddl: string; readonly says: string; readonly settings?: Record<string, string>}>
> = {
  'a column ClickHouse keeps for itself': {
    ddl: 'CREATE TABLE t (id int PRIMARY KEY, _row_exists int)',
    says: '_row_exists',
  },
  'a schema and a table too long for a file name together': {
    ddl: `CREATE SCHEMA "${'漢'.repeat(21)}"; CREATE TABLE "${'漢'.repeat(21)}"."${'字'.repeat(21)}" (id int PRIMARY KEY)`,
    says: '字字字',
  },
  'a view too long for a file name, under a schema that makes it so': {
    ddl: `CREATE SCHEMA "${'漢'.repeat(15)}"; CREATE TABLE "${'漢'.repeat(15)}"."${'字'.repeat(6)}" (id int PRIMARY KEY)`,
    says: 'name of its view is too long',
    settings: {FRESHET_ANALYTICS_DATABASE: 'a'.repeat(63)},
  },
  'an array in a key': {
    ddl: 'CREATE TABLE t (id int, labels text[], PRIMARY KEY (id, labels))',
    says: 'labels of its key is an array',
  },
  'an array in a key behind a domain': {
    ddl: 'CREATE DOMAIN pair AS int[] NOT NULL; CREATE TABLE t (k pair PRIMARY KEY)',
    says: 'k of its key is an array',
  },
  'two tables with one name for people': {
    ddl: 'CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c (id int PRIMARY KEY); CREATE SCHEMA a; CREATE TABLE a."b.c" (id int PRIMARY KEY)',
    says: 'a.b.c',
  },
};

for (const [what, {ddl, says, settings: own}] of Object.entries(REFUSED)) {
  test(`Names: ${what}: refused before anything is made`, async t => {
    const {settings} = await makeWorld(t, ddl, {FRESHET_TABLES_INCLUDE: '**', ...own});
    const {problems} = await withClient(clientConfig(settings), client => preflight(client, settings));
    t.true(problems.some(({message}) => message.includes(says)));
  });
}

test('Names: `public.*` is every table of the schema, whatever its name', async t => {
  const names = ['a/b', '/', 'a\nb', '\r', '\u2028', '.', './x', 'a\\b', '[a]', '!a'];
  const ddl = names.map(name => `CREATE TABLE "${name}" (id int PRIMARY KEY);`).join('');
  const {settings} = await makeWorld(t, ddl);
  const {captured} = await withClient(clientConfig(settings), client => preflight(client, settings));
  t.deepEqual(captured.map(({schema}) => schema.definition.table).sort(), [...names].sort());
});

test('Names: a key with control characters in its name is found in its target', async t => {
  const world = await startPipeline(t, `CREATE TABLE t ("a\tb\n" int PRIMARY KEY); INSERT INTO t VALUES (1)`);
  await world.caughtUp();
  t.deepEqual(await world.query('SELECT * FROM {an}.t'), [{'a\tb\n': 1}]);
});

test('Names: a line break in a name makes no line of its own where a problem is told', async t => {
  const {settings} = await makeWorld(t, 'CREATE TABLE "a\n    ALTER ROLE x SUPERUSER; --\u001b[2J" (id int)');
  const {problems} = await withClient(clientConfig(settings), client => preflight(client, settings));
  t.is(problems.length, 1);
  t.notRegex(problems[0]!.message, /\p{Cc}/u);
});

const DOTTED = `CREATE TABLE t (id int PRIMARY KEY, "n.a" int[] NOT NULL, "n.b" text[] NOT NULL, "n.c" int[] NOT NULL, big text);
  ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER "n.c" SET STORAGE EXTERNAL;
  INSERT INTO t SELECT i, ARRAY[i], '{}', array_fill(i, ARRAY[900]), repeat(md5(i::text), 90) FROM generate_series(1, 4) i`;

test('Names: arrays whose names share what stands before a dot are of any length each', async t => {
  const world = await startPipeline(t, DOTTED);
  const {pg, caughtUp, ch, settings} = world;
  const equal = async () => {
    await caughtUp();
    const verdicts = await verify({client: ch, settings});
    t.deepEqual(
      verdicts.map(({verdict, differences}) => [verdict, differences]),
      [['equal', []]],
    );
  };
  await equal();
  await pg.query(`UPDATE t SET "n.a" = '{1,NULL,3}' WHERE id = 1; UPDATE t SET id = 9, "n.b" = '{x}' WHERE id = 2;
    DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (10, '{}', '{a,b,c}', '{1}', 'x')`);
  await equal();
  await pg.query(`ALTER TABLE t RENAME "n.b" TO b; ALTER TABLE t ADD "n.d" int[];
    ALTER TABLE t ADD "m.a" int[]; ALTER TABLE t RENAME "n.c" TO c; UPDATE t SET "n.a" = '{4}' WHERE id IN (4, 9)`);
  await equal();
});

/** In a file's name each byte of it takes three. */
const LONG = '漢'.repeat(21);

test('Names: a table that changes into one that has no place is parked, and the others go on', async t => {
  const world = await startPipeline(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, k int[]); CREATE TABLE b (id int PRIMARY KEY);
     CREATE TABLE c (id int PRIMARY KEY); INSERT INTO a VALUES (1, '{1}')`,
  );
  const {pg, caughtUp, query} = world;
  await caughtUp();
  await pg.query('ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (k)');
  await pg.query('ALTER TABLE b ADD _row_exists int');
  await pg.query(`CREATE TABLE "${LONG}" (id int PRIMARY KEY)`);
  await pg.query(`INSERT INTO a VALUES (2, '{2}'); INSERT INTO b VALUES (1, 1); INSERT INTO c VALUES (1)`);
  while ((await query('SELECT id FROM {an}.c')).length === 0) await new Promise(r => setTimeout(r, 50));
  const parked = `SELECT table_name, reason FROM {cdc}._tables FINAL WHERE state = 'parked' ORDER BY table_name`;
  const found = await query(parked);
  t.deepEqual(
    found.map(row => row.table_name),
    ['a', 'b', LONG],
  );
  t.regex(String(found[0]!.reason), /^public\.a: k of its key is an array/);
  t.regex(String(found[1]!.reason), /_row_exists is a name that ClickHouse keeps for itself/);
  t.regex(String(found[2]!.reason), /the name of its target is too long for ClickHouse/);
  await pg.query('ALTER TABLE a DROP CONSTRAINT a_pkey, ADD PRIMARY KEY (id)');
  await pg.query(`ALTER TABLE b DROP _row_exists; INSERT INTO b VALUES (2); DROP TABLE "${LONG}"`);
  await caughtUp();
  t.deepEqual(await query('SELECT id FROM {an}.a ORDER BY id'), [{id: 1}, {id: 2}]);
  t.deepEqual(await query('SELECT id FROM {an}.b ORDER BY id'), [{id: 1}, {id: 2}]);
});
