import test from 'ava';
import pg from 'pg';
import {run} from '../pipeline.ts';
import {exitCode, verify} from '../reconcile/verify.ts';
import {loadSettings} from '../settings/settings.ts';
import {freshet} from '../test-support/command-line.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';

test('a role with few rights, and event triggers that a superuser made by what is printed', async t => {
  const world = await makeWorld(
    t,
    "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'one')",
  );
  const role = `${world.settings.FRESHET_SLOT} "role"`;
  const quoted = `"${role.replaceAll('"', '""')}"`;
  const {pg: admin, query} = world;
  await admin.query(`CREATE ROLE ${quoted} LOGIN REPLICATION PASSWORD 'secret'; GRANT SELECT ON t TO ${quoted};
    CREATE PUBLICATION ${world.settings.FRESHET_PUBLICATION} FOR ALL TABLES WITH (publish_via_partition_root)`);
  t.teardown(() => admin.query(`DROP OWNED BY ${quoted}; DROP ROLE ${quoted}`));
  const url = new URL(world.settings.FRESHET_PG_URL);
  url.username = encodeURIComponent(role);
  url.password = 'secret';
  const environment = {...world.environment, FRESHET_PG_URL: url.href};
  const settings = loadSettings(environment);

  const before = await freshet(t, environment, ['status']);
  t.regex(before.stdout, /^schema changes: found by looking at the catalog.* freshet triggers \| psql/m);
  const printed = await freshet(t, environment, ['triggers']);
  t.is(printed.code, 0, printed.stderr);
  t.regex(printed.stdout, /^-- They are not there yet\. To be run by a superuser in database t\w+/m);
  await admin.query(printed.stdout);
  t.regex((await freshet(t, environment, ['triggers'])).stdout, /^-- They are in force\./m);

  const stopper = new AbortController();
  const ended = run({settings, log: world.log, signal: stopper.signal}).catch(error => error as unknown);
  t.teardown(() => stopper.abort());
  await world.caughtUp();
  // One who has no right of the pipeline's alters the table; within a transaction only triggers can tell.
  await admin.query(
    `BEGIN; ALTER TABLE t ADD b int; INSERT INTO t VALUES (2, 'two', 2); ALTER TABLE t DROP b; COMMIT`,
  );
  await world.caughtUp();
  t.deepEqual(
    await query(
      "SELECT kind, change FROM {cdc}._schema_changes FINAL WHERE change <> 'it was read' ORDER BY since",
    ),
    [
      {kind: 'in place', change: 'column b was added'},
      {kind: 'in place', change: 'column b was dropped'},
    ],
  );
  t.deepEqual(await query('SELECT * FROM {an}.t ORDER BY id'), [
    {id: 1, v: 'one'},
    {id: 2, v: 'two'},
  ]);
  t.regex(
    (await freshet(t, environment, ['status'])).stdout,
    /^schema changes: announced by event triggers$/m,
  );

  // What the superuser may read is not what the pipeline may.
  const hidden = async () =>
    (await query("SELECT state, reason FROM {cdc}._tables FINAL WHERE table_name = 'hidden'"))[0];
  await admin.query(
    'CREATE TABLE hidden (id int PRIMARY KEY); INSERT INTO hidden VALUES (1); INSERT INTO t VALUES (3)',
  );
  while ((await hidden())?.state !== 'parked') t.is(stopper.signal.aborted, false);
  t.regex(String((await hidden())?.reason), /may not read it.*GRANT SELECT ON "public"\."hidden"/);
  await admin.query(`GRANT SELECT ON hidden TO ${quoted}`);
  while ((await hidden())?.state !== 'streaming') t.is(stopper.signal.aborted, false);
  await admin.query('INSERT INTO hidden VALUES (2)');
  await world.caughtUp();
  t.is(exitCode(await verify({client: world.ch, settings})), 0);

  // The function works with a superuser's rights, so it must be out of the role's reach.
  const own = new pg.Client(url.href);
  await own.connect();
  t.teardown(() => own.end());
  const {rows} = await own.query(
    "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = 'freshet'::regnamespace",
  );
  t.is(rows.length, 1);
  await t.throwsAsync(own.query(`ALTER FUNCTION ${rows[0].name} SECURITY INVOKER`), {
    message: /permission denied for schema freshet/,
  });

  stopper.abort();
  t.is(await ended, undefined);
  const gone = await freshet(t, environment, ['teardown', '--yes']);
  t.is(gone.code, 0, gone.stderr);
  t.regex(gone.stdout, /! publication \w+: another role made it.*\nDROP PUBLICATION/);
  const drop = /! the event triggers: another role made it.*\n((?:DROP .*\n)+)/.exec(gone.stdout)?.[1];
  await admin.query(String(drop));
  const left = await admin.query(
    "SELECT FROM pg_event_trigger UNION ALL SELECT FROM pg_proc WHERE pronamespace = 'freshet'::regnamespace",
  );
  t.is(left.rowCount, 0);
});
