import test, {type ExecutionContext} from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {run} from '../pipeline.ts';
import {loadSettings, type Settings} from '../settings/settings.ts';
import {serverVersion} from '../test-support/server-version.ts';
import {makeWorld, transport, type World} from '../test-support/start-pipeline.ts';
import {clientConfig, withClient} from './postgres.ts';
import {type Preflight, preflight, problemLines} from './preflight.ts';

interface Case {
  /** `{p}` stands for the publication, `{role}` for a role of the test's own, `{generated}` for what 18 adds. */
  readonly ddl: string;
  readonly environment?: Record<string, string>;
  /** Preflight is run by this role; a superuser otherwise. */
  readonly role?: string;
  readonly says: string;
  /** The SQL that is printed; where there is none, what a person would do. */
  readonly sql?: string;
  readonly byHand?: string;
  /** The first version that knows what it is about. */
  readonly since?: number;
  /** It is about topics. */
  readonly kafka?: true;
  /** What is filled in for the placeholders that are left. */
  readonly fill?: Readonly<Record<string, string>>;
}

const TABLE = 'CREATE TABLE t (id int PRIMARY KEY, v text);';
const ROLE = 'LOGIN REPLICATION';

const CASES: Readonly<Record<string, Case>> = {
  'no table matches': {
    ddl: TABLE,
    environment: {FRESHET_TABLES_INCLUDE: 'shop.*,public.x*'},
    says: 'no table matches FRESHET_TABLES_INCLUDE (shop.*,public.x*)',
    byHand: 'CREATE TABLE xx (id int PRIMARY KEY)',
  },
  'R9 N5 a table without a key': {
    ddl: 'CREATE TABLE "odd ""name" (a int NOT NULL, b int)',
    says: 'public.odd "name: it has no primary key, so its rows cannot be told apart',
    sql: 'ALTER TABLE "public"."odd ""name" ADD PRIMARY KEY (<columns>);',
    fill: {'<columns>': 'a'},
  },
  'a table named like a metric view': {
    ddl: 'CREATE TABLE customer_metrics (id int PRIMARY KEY)',
    says: "public.customer_metrics: customer_metrics is a metric view; set FRESHET_ANALYTICS_SCHEMA to another schema, and the table's view is called public__customer_metrics",
    byHand: 'ALTER TABLE customer_metrics RENAME TO metrics_of_customers',
  },
  'a column list without the key': {
    ddl: `${TABLE} CREATE PUBLICATION {p} FOR TABLE t (v) WITH (publish_via_partition_root = true)`,
    says: "public.t: the publication's column list leaves out id of its key",
    byHand: 'ALTER PUBLICATION {p} SET TABLE t (id, v)',
    since: 150_000,
  },
  'R5b a deferrable key': {
    ddl: 'CREATE TABLE t (b int, a int, CONSTRAINT "its key" PRIMARY KEY (a, b) DEFERRABLE); ALTER TABLE t REPLICA IDENTITY FULL',
    says: 'public.t: its primary key is DEFERRABLE, so two rows may hold one key within a transaction',
    sql: 'ALTER TABLE "public"."t" DROP CONSTRAINT "its key", ADD PRIMARY KEY ("a", "b");',
  },
  'R9 REPLICA IDENTITY NOTHING': {
    ddl: `${TABLE} ALTER TABLE t REPLICA IDENTITY NOTHING`,
    says: 'public.t: with REPLICA IDENTITY NOTHING a deletion does not say which row',
    sql: 'ALTER TABLE "public"."t" REPLICA IDENTITY DEFAULT;',
  },
  'an identity whose index is gone': {
    ddl: `${TABLE} ALTER TABLE t ALTER v SET NOT NULL; CREATE UNIQUE INDEX i ON t (v);
      ALTER TABLE t REPLICA IDENTITY USING INDEX i; DROP INDEX i`,
    says: 'public.t: with REPLICA IDENTITY on an index that is gone a deletion does not say which row',
    sql: 'ALTER TABLE "public"."t" REPLICA IDENTITY DEFAULT;',
  },
  'N5 a partition with REPLICA IDENTITY NOTHING': {
    ddl: `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
      ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t1 REPLICA IDENTITY NOTHING`,
    says: 'public.t: its partition public.t1 has a REPLICA IDENTITY of its own, and a deletion does not say id of the key',
    sql: 'ALTER TABLE "public"."t1" REPLICA IDENTITY DEFAULT;',
  },
  'N5 a partition without the index of its root’s REPLICA IDENTITY': {
    ddl: `CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL) PARTITION BY RANGE (id); CREATE UNIQUE INDEX i ON t (k, id);
      CREATE TABLE t1 PARTITION OF t DEFAULT; ALTER TABLE t REPLICA IDENTITY USING INDEX i`,
    says: 'public.t: its partition public.t1 has a REPLICA IDENTITY of its own, and a deletion does not say k of the key',
    sql: 'ALTER TABLE "public"."t1" REPLICA IDENTITY USING INDEX <its index of the key>;',
    fill: {'<its index of the key>': 't1_k_id_idx'},
  },
  'N5 an unlogged partition': {
    ddl: `CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      CREATE UNLOGGED TABLE t1 PARTITION OF t DEFAULT`,
    says: 'public.t: its partition public.t1 is unlogged: nobody is told of its changes',
    sql: 'ALTER TABLE "public"."t1" SET LOGGED;',
  },
  'O1 a table that may not be read': {
    ddl: `CREATE SCHEMA shop; CREATE TABLE shop.t (id int PRIMARY KEY); CREATE PUBLICATION {p} FOR TABLE shop.t`,
    environment: {FRESHET_TABLES_INCLUDE: 'shop.*'},
    role: ROLE,
    says: 'shop.t: the role of FRESHET_PG_URL may not read it',
    sql: 'GRANT USAGE ON SCHEMA "shop" TO <role>; GRANT SELECT ON "shop"."t" TO <role>;',
  },
  'O1 a table of which one column may be read': {
    ddl: `${TABLE} GRANT SELECT (id) ON t TO {role}; CREATE PUBLICATION {p} FOR TABLE t`,
    role: ROLE,
    says: 'public.t: the role of FRESHET_PG_URL may not read it',
    sql: 'GRANT USAGE ON SCHEMA "public" TO <role>; GRANT SELECT ON "public"."t" TO <role>;',
  },
  'a role that may not replicate': {
    ddl: `${TABLE} GRANT SELECT ON t TO {role}; CREATE PUBLICATION {p} FOR TABLE t`,
    role: 'LOGIN',
    says: 'the role may not replicate',
    sql: 'ALTER ROLE <role> REPLICATION;',
  },
  'O2 row security': {
    ddl: `${TABLE} ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON t TO {role}; CREATE PUBLICATION {p} FOR TABLE t`,
    role: ROLE,
    says: 'public.t: row security hides rows from the role of FRESHET_PG_URL',
    sql: 'ALTER ROLE <role> BYPASSRLS;',
  },
  'O3 a publication that the role may not create': {
    ddl: `${TABLE} GRANT SELECT ON t TO {role}`,
    role: ROLE,
    says: 'publication {p} does not exist, and the role may not create it',
    sql: 'CREATE PUBLICATION "{p}" FOR TABLE "public"."t" WITH (publish_via_partition_root = true{generated});',
  },
  'a publication of tables that others own': {
    ddl: `${TABLE} GRANT SELECT ON t TO {role}; GRANT CREATE ON DATABASE {p} TO {role}`,
    role: ROLE,
    says: 'publication {p} does not exist, and the role may not create it',
    sql: 'CREATE PUBLICATION "{p}" FOR TABLE "public"."t" WITH (publish_via_partition_root = true{generated});',
  },
  'a table that the publication lacks': {
    ddl: `${TABLE} CREATE TABLE u (id int PRIMARY KEY); CREATE PUBLICATION {p} FOR TABLE u WITH (publish_via_partition_root)`,
    says: 'public.t: it is not in the publication',
    sql: 'ALTER PUBLICATION "{p}" ADD TABLE "public"."t";',
  },
  'N5 a partitioned table that the publication lacks': {
    ddl: `CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id);
      CREATE TABLE t1 PARTITION OF t DEFAULT; CREATE PUBLICATION {p} FOR TABLE u WITH (publish_via_partition_root)`,
    says: 'public.t: it is not in the publication',
    sql: 'ALTER PUBLICATION "{p}" ADD TABLE "public"."t";',
  },
  'a publication that sends partitions': {
    ddl: `CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT;
      CREATE PUBLICATION {p} FOR TABLE t`,
    says: 'the publication sends partitions under their own names',
    sql: 'ALTER PUBLICATION "{p}" SET (publish_via_partition_root = true);',
  },
  'a publication that leaves out deletions': {
    ddl: `${TABLE} CREATE PUBLICATION {p} FOR ALL TABLES WITH (publish = 'insert, update')`,
    says: 'the publication leaves out some kinds of change',
    sql: `ALTER PUBLICATION "{p}" SET (publish = 'insert, update, delete, truncate');`,
  },
  'a column with a technical name': {
    ddl: 'CREATE TABLE t (id int PRIMARY KEY, _version int)',
    says: 'public.t: _version is the name of a technical column',
    byHand: 'ALTER TABLE t RENAME _version TO revision',
  },
  'a type without a mapping': {
    ddl: 'CREATE TABLE t (id int PRIMARY KEY, v regclass)',
    says: 'public.t: column v: no mapping for type regclass: its text is a name that can change while the row does not: store the oid or the name, or leave the column out of the publication',
    byHand: 'ALTER TABLE t ALTER v TYPE text',
  },
  'a composite with a type without a mapping': {
    ddl: `CREATE DOMAIN place AS regclass; CREATE TYPE inner_pair AS (a int, r place[]); CREATE TYPE pair AS (p inner_pair, b text);
      CREATE TABLE t (id int PRIMARY KEY, v pair[], w int4range)`,
    says: 'public.t: column v has regclass within: its text is a name that can change while the row does not: store the oid or the name, or leave the column out of the publication',
    byHand: 'ALTER TABLE t ALTER v TYPE text',
  },
  'two tables with one target': {
    ddl: 'CREATE SCHEMA a; CREATE SCHEMA a__b; CREATE TABLE a.b__c (id int PRIMARY KEY); CREATE TABLE a__b.c (id int PRIMARY KEY)',
    environment: {FRESHET_TABLES_INCLUDE: '*.*', FRESHET_ANALYTICS_SCHEMA: 'a'},
    says: 'a__b.c and a.b__c would share the target table a__b__c',
    byHand: 'ALTER TABLE a__b.c RENAME TO d',
  },
  'two tables with one topic, for Kafka': {
    ddl: 'CREATE SCHEMA a; CREATE TABLE a.b_c (id int PRIMARY KEY); CREATE SCHEMA a_b; CREATE TABLE a_b.c (id int PRIMARY KEY)',
    environment: {FRESHET_TABLES_INCLUDE: '*.*'},
    kafka: true,
    says: "a_b.c and a.b_c would share the topic, as Kafka does not tell '.' from '_', {p}_a_b_c",
    byHand: 'ALTER TABLE a_b.c RENAME TO d',
  },
  'two tables with one name': {
    ddl: 'CREATE SCHEMA a; CREATE TABLE a."b.c" (id int PRIMARY KEY); CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c (id int PRIMARY KEY)',
    environment: {FRESHET_TABLES_INCLUDE: '*.*'},
    says: '"a.b"."c" and "a"."b.c" would share the name a.b.c',
    byHand: 'ALTER TABLE "a.b".c RENAME TO d',
  },
  'a key with an array': {
    ddl: 'CREATE TABLE t (k int[] PRIMARY KEY, id int NOT NULL); CREATE UNIQUE INDEX i ON t (id)',
    says: 'public.t: k of its key is an array, and ClickHouse does not find rows by a key whose parts may be NULL',
    sql: 'ALTER TABLE "public"."t" REPLICA IDENTITY USING INDEX <a unique index of other columns>;',
    fill: {'<a unique index of other columns>': 'i'},
  },
  'a column with a name of ClickHouse': {
    ddl: 'CREATE TABLE t (id int PRIMARY KEY, _block_number bigint)',
    says: 'public.t: _block_number is a name that ClickHouse keeps for itself',
    byHand: 'ALTER TABLE t RENAME _block_number TO block',
  },
  'names that would make lines of their own': {
    ddl: 'CREATE TABLE "a\n  b\\\u001b""c" (d int NOT NULL)',
    says: 'public.a\\n  b\\\\u001b"c: it has no primary key, so its rows cannot be told apart',
    sql: String.raw`ALTER TABLE "public".U&"a\000a  b\\\001b""c" ADD PRIMARY KEY (<columns>);`,
    fill: {'<columns>': 'd'},
  },
  'two tables with one view': {
    ddl: 'CREATE SCHEMA a; CREATE TABLE a.b (id int PRIMARY KEY); CREATE TABLE a__b (id int PRIMARY KEY)',
    environment: {FRESHET_TABLES_INCLUDE: '*.*'},
    says: 'public.a__b and a.b would share the view a__b',
    byHand: 'ALTER TABLE a__b RENAME TO c',
  },
};

for (const [what, given] of Object.entries(CASES)) {
  test(`${what}: it is told, nothing is changed, and the SQL mends it`, async t => {
    if (given.kafka && transport() === 'direct') return skip(t, 'there are no topics without Kafka');
    const world = await makeWorld(t, '', given.environment);
    const version = await serverVersion(world.pg);
    if (version < (given.since ?? 0)) return skip(t, `PostgreSQL ${given.since! / 10_000} is needed`);
    const {settings, role} = await withRole(t, world, given.role);
    const named = (text: string): string =>
      text
        .replaceAll('{p}', settings.FRESHET_PUBLICATION)
        .replaceAll('{role}', role)
        .replaceAll('{generated}', version < 180_000 ? '' : ', publish_generated_columns = stored');
    await world.pg.query(named(given.ddl));
    const before = await state(world);
    const {problems} = await check(settings);
    t.deepEqual(
      problems.map(({table: _table, onlyAtFirst: _first, ...said}) => said),
      [{message: named(given.says), ...(given.sql === undefined ? {} : {sql: named(given.sql)})}],
    );
    t.deepEqual(problemLines(problems).length, given.sql === undefined ? 1 : 2);
    t.deepEqual(await state(world), before);
    let mend = named(given.byHand ?? problems[0]!.sql!);
    for (const [place, text] of Object.entries({...given.fill, '<role>': role}))
      mend = mend.replaceAll(place, text);
    await world.pg.query(mend);
    t.deepEqual((await check(settings)).problems, []);
  });
}

test('a generated column in a column list is captured where it is sent, and left out where it is not', async t => {
  const world = await makeWorld(
    t,
    'CREATE TABLE t (id int PRIMARY KEY, v int, twice int GENERATED ALWAYS AS (v * 2) STORED, rest int)',
  );
  const version = await serverVersion(world.pg);
  if (version < 150_000) return skip(t, 'PostgreSQL 15 is needed');
  const {settings} = world;
  // Before 18 the list cannot name it, but a table without a list is shown with all of its columns.
  const list = version < 180_000 ? '' : ' (id, twice, v)';
  await world.pg.query(
    `CREATE PUBLICATION ${settings.FRESHET_PUBLICATION} FOR TABLE t${list} WITH (publish_via_partition_root)`,
  );
  const {captured, problems} = await check(settings);
  t.deepEqual(problems, []);
  t.deepEqual(
    captured[0]!.schema.columns.map(({name}) => name),
    version < 180_000 ? ['id', 'v', 'rest'] : ['id', 'v', 'twice'],
  );
});

test('D9 a table that somebody keeps locked is judged without waiting for it', async t => {
  const world = await makeWorld(
    t,
    `${TABLE} CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
     CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
  );
  await world.pg.query('BEGIN; LOCK TABLE t, p0 IN ACCESS EXCLUSIVE MODE');
  const {captured, problems} = await check(world.settings);
  t.deepEqual(problems, []);
  t.deepEqual(captured.map(({schema}) => schema.name).sort(), ['public.p', 'public.t']);
  await world.pg.query('COMMIT');
});

test('a slot of that name in another database is told', async t => {
  const world = await makeWorld(t, TABLE);
  const elsewhere = {...world.settings, FRESHET_PG_URL: process.env.TEST_PG_URL!};
  const database = await withClient(clientConfig(elsewhere), async client => {
    await client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", [
      world.settings.FRESHET_SLOT,
    ]);
    return client.database;
  });
  const {problems} = await check(world.settings);
  const slot = world.settings.FRESHET_SLOT;
  t.deepEqual(problems, [
    {
      message: `slot ${slot} exists for pgoutput in database ${database}; set FRESHET_SLOT to another name`,
    },
  ]);
});

test('what the pipeline refuses at its start holds every problem and its SQL', async t => {
  const {settings, log, pg} = await makeWorld(t, 'CREATE TABLE a (x int); CREATE TABLE b (y int)');
  const error = await t.throwsAsync(run({settings, log, signal: new AbortController().signal}));
  t.like(error, {code: 'pg.preflight'});
  for (const table of ['a', 'b'])
    t.true(error!.message.includes(`ALTER TABLE "public"."${table}" ADD PRIMARY KEY (<columns>);`));
  const {rows} = await pg.query('SELECT FROM pg_publication');
  t.is(rows.length, 0);
});

test('O1 a permission that is revoked while changes stream is named when it is missed', async t => {
  const world = await makeWorld(t, 'CREATE TABLE t (id int PRIMARY KEY, big text)');
  const {settings, role} = await withRole(t, world, ROLE);
  await world.pg.query(
    `INSERT INTO t SELECT 1, string_agg(md5(i::text), '') FROM generate_series(1, 300) i; GRANT SELECT ON t TO ${role};
     CREATE PUBLICATION ${settings.FRESHET_PUBLICATION} FOR TABLE t WITH (publish_via_partition_root)`,
  );
  const stopper = new AbortController();
  t.teardown(() => stopper.abort());
  const ended = run({settings, log: world.log, signal: stopper.signal}).catch(error => error as unknown);
  await world.caughtUp();
  await world.pg.query(`REVOKE SELECT ON t FROM ${role}; UPDATE t SET id = 2`); // its large value must be asked for
  const error = await ended;
  t.like(error, {code: 'pg.permission', reaction: 'halt'});
  t.regex(String(error), /permission denied for table t\b/);
});

test('a role with REPLICATION, SELECT and a publication made beforehand can run it all', async t => {
  const world = await makeWorld(t, 'CREATE TABLE t (id int PRIMARY KEY, v text, big text)');
  const {settings, role} = await withRole(t, world, ROLE);
  await world.pg.query(
    `INSERT INTO t VALUES (1, 'before'); GRANT SELECT ON t TO ${role};
     CREATE PUBLICATION ${settings.FRESHET_PUBLICATION} FOR TABLE t WITH (publish_via_partition_root)`,
  );
  const stopper = new AbortController();
  const ended = run({settings, log: world.log, signal: stopper.signal}).catch(error => error as unknown);
  t.teardown(() => stopper.abort());
  await world.caughtUp();
  await world.pg.query(
    `INSERT INTO t SELECT 2, 'new', string_agg(md5(i::text), '') FROM generate_series(1, 300) i`,
  );
  await world.pg.query('UPDATE t SET id = 3 WHERE id = 2'); // its large value must be asked for
  await world.caughtUp();
  t.deepEqual(await world.query('SELECT id, v, length(big) AS n FROM {an}.t ORDER BY id'), [
    {id: 1, v: 'before', n: null},
    {id: 3, v: 'new', n: '9600'},
  ]);
  stopper.abort();
  t.is(await ended, undefined);
});

/** Settings that log in as a new role with the attributes; the superuser of the test where there are none. */
async function withRole(
  t: ExecutionContext,
  world: World,
  attributes: string | undefined,
): Promise<{settings: Settings; role: string}> {
  const role = `${world.settings.FRESHET_SLOT}_role`;
  if (attributes === undefined) return {settings: world.settings, role};
  await world.pg.query(`CREATE ROLE ${role} ${attributes} PASSWORD 'secret'`);
  t.teardown(() => world.pg.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`));
  const url = new URL(world.settings.FRESHET_PG_URL);
  url.username = role;
  url.password = 'secret';
  return {settings: loadSettings({...world.environment, FRESHET_PG_URL: url.href}), role};
}

/** In a transaction that could not change anything. */
function check(settings: Settings): Promise<Preflight> {
  return withClient(clientConfig(settings), async client => {
    await client.query('BEGIN READ ONLY');
    return preflight(client, settings);
  });
}

/** All that a preflight could be tempted to change. */
async function state({pg, settings}: World): Promise<unknown> {
  const {rows} = await pg.query(
    `SELECT (SELECT json_agg(p) FROM pg_publication p) AS publications,
       (SELECT json_agg(t) FROM pg_publication_tables t) AS published,
       (SELECT json_agg(s.slot_name) FROM pg_replication_slots s WHERE s.database = current_database() OR slot_name = $1) AS slots,
       (SELECT json_agg(json_build_array(relname, relreplident, relacl::text, relrowsecurity) ORDER BY oid) FROM pg_class WHERE oid >= 16384) AS classes`,
    [settings.FRESHET_SLOT],
  );
  return rows[0];
}
