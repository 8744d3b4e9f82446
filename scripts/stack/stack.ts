import {mkdir, mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {clickhouse, clickhouseUrl} from './clickhouse.ts';
import {takeDataFolder} from './data-folder.ts';
import {kafka} from './kafka.ts';
import {type Ports, settlePorts} from './ports.ts';
import {postgres, postgresUrl} from './postgres.ts';
import {startReaper} from './reaper.ts';
import type {ServerRow, Site} from './server.ts';
import {type Supervised, supervise} from './supervisor.ts';

export {kafkaInstalled, kafkaMissing} from '../kafka/kafka.mjs';
export {stackPortsFromEnv} from './ports.ts';
export {StackError} from './stack-error.ts';

const SERVERS = {postgres, clickhouse, kafka} as const satisfies Record<string, ServerRow>;
export type ServerName = keyof typeof SERVERS;

export interface StackOptions {
  /** All of the stack's files; kept between runs. One stack a folder at a time. */
  readonly dataDir: string;
  readonly kafka: boolean;
  /** Empties the folder first. */
  readonly fresh?: boolean;
  /** Removes the folder with the stack, however this process ends. */
  readonly temporary?: boolean;
  /** 0 = any free port; what is left out has its usual port. */
  readonly ports?: Partial<Ports>;
  /** False: PostgreSQL does not wait for the disk, for tests. Default true. */
  readonly durable?: boolean;
  /** Folder with `initdb` and `postgres` of another version; default: PostgreSQL 18 from npm. */
  readonly postgresBin?: string | undefined;
  /** Content of ClickHouse's users.xml. It must keep a user `default` without a password. Default: only that user. */
  readonly clickhouseUsersXml?: string;
  /** Gets a line for each server that is up. */
  readonly log?: (line: string) => void;
}

export interface Stack {
  readonly dataDir: string;
  /** Superuser, database `postgres`. */
  readonly pgUrl: string;
  /** `host:port`; null without Kafka. */
  readonly kafkaBrokers: string | null;
  readonly clickhouseUrl: string;
  readonly clickhouseNative: {readonly host: string; readonly port: number};
  /** The servers that run now, and `reaper`. */
  readonly pids: Readonly<Record<string, number>>;
  /** Ends a server where it runs and starts it on the same port and data. Rejects with a StackError. */
  restart(server: ServerName): Promise<void>;
  /** For tests of failures: sends a signal (default SIGKILL) and waits for the end, except after SIGSTOP and SIGCONT. */
  kill(server: ServerName, signal?: NodeJS.Signals): Promise<void>;
  /** The first server that ended without being asked to; pending for as long as there is none. */
  readonly exited: Promise<{server: ServerName; code: number | null}>;
  /** Ends all servers, by SIGKILL where they do not hurry, and gives the folder free. */
  stop(): Promise<void>;
}

/** Clients of a stack would follow PG* variables (PGSSLMODE=require), which are of servers elsewhere. */
export function forgetPostgresVariables(): void {
  for (const name of Object.keys(process.env)) if (name.startsWith('PG')) delete process.env[name];
}

/**
 * Starts PostgreSQL, ClickHouse and, where wanted, Kafka on 127.0.0.1. They end with this process, however it ends.
 * @throws StackError with a message for a person: a port or the folder in use, a server that does not come up
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const dataDir = path.resolve(options.dataDir);
  forgetPostgresVariables();
  const folder = await takeDataFolder(dataDir, options.fresh ?? false);
  const died = Promise.withResolvers<{server: ServerName; code: number | null}>();
  const reaper = startReaper(...(options.temporary ? [dataDir] : []));
  const servers = new Map<ServerName, Supervised>();

  const targets = () => [...servers.values()].flatMap(server => server.target() ?? []);
  const changed = () => {
    folder.note(targets());
    reaper.watch(targets());
  };
  const end = async () => {
    await Promise.all([...servers.values()].map(server => server.stop()));
    if (options.temporary) await rm(dataDir, {recursive: true, force: true});
    reaper.close();
    folder.release();
  };
  let ended: Promise<void> | null = null;
  const stop = () => {
    ended ??= end();
    return ended;
  };
  const the = (name: ServerName): Supervised => {
    const server = servers.get(name);
    if (!server) throw new RangeError(`this stack has no ${name}`);
    return server;
  };

  try {
    const ports = await settlePorts(options.ports ?? {}, options.kafka);
    const add = async (name: ServerName) => {
      const began = performance.now();
      const site: Site = {
        dir: path.join(dataDir, name),
        ports,
        durable: options.durable ?? true,
        postgresBin: options.postgresBin,
        clickhouseUsersXml: options.clickhouseUsersXml,
      };
      await mkdir(site.dir, {recursive: true});
      const row = SERVERS[name];
      const server = supervise(name, row, site, {changed, died: code => died.resolve({server: name, code})});
      servers.set(name, server);
      await server.start();
      options.log?.(`${row.title} is up after ${((performance.now() - began) / 1000).toFixed(1)} s`);
    };
    const wanted = (Object.keys(SERVERS) as ServerName[]).filter(name => options.kafka || name !== 'kafka');
    // All are waited for, also after a failure: a server that is just being started must not slip through the stop.
    const failed = (await Promise.allSettled(wanted.map(add))).find(result => result.status === 'rejected');
    if (failed) throw failed.reason;
    return {
      dataDir,
      pgUrl: postgresUrl({ports}),
      kafkaBrokers: options.kafka ? `127.0.0.1:${ports.kafka}` : null,
      clickhouseUrl: clickhouseUrl({ports}),
      clickhouseNative: {host: '127.0.0.1', port: ports.clickhouseNative},
      get pids() {
        return Object.fromEntries([...targets().map(({name, pid}) => [name, pid]), ['reaper', reaper.pid]]);
      },
      async restart(name) {
        await the(name).stop();
        await the(name).start();
      },
      kill: (name, signal = 'SIGKILL') => the(name).kill(signal),
      exited: died.promise,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A stack on free ports that keeps nothing: its folder, named `freshet-<name>-…`, goes with it, however this process ends. */
export async function startTemporaryStack(
  name: string,
  options: Pick<StackOptions, 'kafka' | 'postgresBin'>,
): Promise<Stack> {
  const dataDir = await mkdtemp(path.join(tmpdir(), `freshet-${name}-`));
  const ports = {postgres: 0, kafka: 0, clickhouseHttp: 0, clickhouseNative: 0};
  return startStack({...options, dataDir, ports, durable: false, temporary: true});
}
