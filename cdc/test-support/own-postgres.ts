import {execFile} from 'node:child_process';
import {chmod, mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {settlePorts} from '../../scripts/stack/ports.ts';
import {postgres, postgresUrl} from '../../scripts/stack/postgres.ts';
import {startReaper} from '../../scripts/stack/reaper.ts';
import type {ServerRow} from '../../scripts/stack/server.ts';
import {supervise} from '../../scripts/stack/supervisor.ts';
import type {Scope} from './start-pipeline.ts';

export interface OwnPostgres {
  readonly url: string;
  /**
   * Ends it and starts it on the same data, with these settings over the usual ones. While it is down, `meanwhile` may
   * do something to the folder of its data.
   */
  restart(
    settings: Readonly<Record<string, string>>,
    meanwhile?: (data: string) => Promise<void>,
  ): Promise<void>;
}

/** A copy of a folder of data, as root too with its owner. */
export async function copyData(from: string, to: string): Promise<void> {
  await rm(to, {recursive: true, force: true});
  await promisify(execFile)('cp', ['-a', from, to]);
}

/** Starts as a standby, or recovers as from a backup, by a file of this name. */
export async function signal(data: string, name: 'standby.signal' | 'recovery.signal'): Promise<void> {
  const file = path.join(data, name);
  await writeFile(file, '');
  await chmod(file, 0o666); // the server is another user's where this is root's
}

/** A PostgreSQL of the caller's own, for what would disturb the tests that share one. */
export async function startPostgres(
  t: Scope,
  settings: Readonly<Record<string, string>> = {},
  prepare: (data: string) => Promise<void> = async () => {},
): Promise<OwnPostgres> {
  const folder = await mkdtemp(path.join(tmpdir(), 'freshet-postgres-'));
  await Promise.all(['postgres', 'log'].map(name => mkdir(path.join(folder, name))));
  const ports = await settlePorts({postgres: 0, clickhouseHttp: 0, clickhouseNative: 0}, false);
  const site = {
    dir: path.join(folder, 'postgres'),
    ports,
    durable: false,
    clickhouseUsersXml: undefined,
    postgresBin: process.env.FRESHET_TEST_POSTGRES_BIN,
  };
  let given = settings;
  const row: ServerRow = {
    ...postgres,
    async prepare(own) {
      const command = await postgres.prepare(own);
      const more = Object.entries(given).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
      return {...command, args: [...command.args, ...more]}; // the last one counts
    },
  };
  const reaper = startReaper();
  const server = supervise('postgres', row, site, {
    changed: () => reaper.watch([server.target()].filter(target => target !== null)),
    died: () => {},
  });
  t.teardown(async () => {
    await server.stop();
    reaper.close();
    await rm(folder, {recursive: true, force: true});
  });
  const data = path.join(site.dir, 'data');
  await prepare(data);
  await server.start();
  return {
    url: postgresUrl({ports}),
    async restart(other, meanwhile = async () => {}) {
      given = other;
      await server.stop();
      await meanwhile(data);
      await server.start();
    },
  };
}
