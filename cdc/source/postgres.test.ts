import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import test from 'ava';
import {loadSettings} from '../settings/settings.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {clientConfig, withClient} from './postgres.ts';
import {ReplicationConnection} from './replication-connection.ts';

const PASSWORD = `hush %41+ü@h:5432/d?x=1&password=y#'"\\`;

test.serial('FRESHET_PG_TLS alone says whether a connection is encrypted', async t => {
  const {settings} = await makeWorld(t, '');
  process.env.PGSSLMODE = 'require'; // the server has no TLS
  t.teardown(() => {
    delete process.env.PGSSLMODE;
  });
  const user = await withClient(clientConfig(settings), client => client.query('SELECT current_user'));
  t.is(user.rowCount, 1);
  const connection = await ReplicationConnection.connect(clientConfig(settings));
  connection.close();
});

test('a password that the URL does not hold opens ordinary and replication connections', async t => {
  const world = await makeWorld(t, '');
  const role = world.settings.FRESHET_SLOT;
  await world.pg.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD ${world.pg.escapeLiteral(PASSWORD)}`);
  t.teardown(() => world.pg.query(`DROP ROLE ${role}`));
  const url = new URL(world.settings.FRESHET_PG_URL);
  url.username = role;
  url.password = '';
  const folder = await mkdtemp(path.join(tmpdir(), 'freshet-password-'));
  t.teardown(() => rm(folder, {recursive: true}));
  const file = path.join(folder, 'password');
  await writeFile(file, `${PASSWORD}\n`);
  const configOf = (given: Record<string, string>) =>
    clientConfig(loadSettings({...world.environment, FRESHET_PG_URL: url.href, ...given}));
  // The server asks for it.
  await t.throwsAsync(
    withClient(configOf({FRESHET_PG_PASSWORD: 'another'}), async () => {}),
    {
      message: /\(28P01\)/,
    },
  );
  for (const given of [{FRESHET_PG_PASSWORD: PASSWORD}, {FRESHET_PG_PASSWORD_FILE: file}]) {
    const config = configOf(given);
    const {rows} = await withClient(config, client => client.query('SELECT current_user'));
    t.deepEqual(rows, [{current_user: role}]);
    const connection = await ReplicationConnection.connect(config);
    t.teardown(() => connection.close());
    t.true((await connection.identify()).timeline > 0);
  }
});
