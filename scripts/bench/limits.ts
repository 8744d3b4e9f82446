// What no system can be faster than: the walsender with a reader that throws everything away, and COPY into INSERT.
import {existsSync} from 'node:fs';
import path from 'node:path';
import type {Readable} from 'node:stream';
import {fileURLToPath} from 'node:url';
import pg from 'pg';
import {to as copyTo} from 'pg-copy-streams';
import {chName, command} from '../../cdc/sink/clickhouse.ts';
import {POSTGRES_BIN} from '../stack/test-servers.ts';
import {arrivedIn, type Ground, until, type Working, walsender} from './ground.ts';
import {startPeer} from './peer-process.ts';
import {columnList, targetColumns} from './target-tables.ts';

const READY_MS = 60_000;

/** PostgreSQL's own reader of slots; undefined where it is not installed. */
export function findRecvlogical(): string | undefined {
  const folders = [process.env[POSTGRES_BIN], ...(process.env.PATH ?? '').split(path.delimiter)];
  return folders
    .filter(folder => folder !== undefined && folder !== '')
    .map(folder => path.join(folder!, 'pg_recvlogical'))
    .find(existsSync);
}

/** A reader of the slot that throws all away; where pg_recvlogical is missing, one of our own. */
export async function startRecvlogical(ground: Ground): Promise<Working> {
  const {name, world, folder} = ground;
  await world.pg.query(`CREATE PUBLICATION ${name} FOR ALL TABLES`);
  await world.pg.query(`SELECT pg_create_logical_replication_slot('${name}', 'pgoutput')`);
  const found = findRecvlogical();
  const url = world.settings.FRESHET_PG_URL;
  const log = path.join(folder, 'recvlogical.log');
  const client = found
    ? startPeer(
        'pg_recvlogical',
        found,
        [
          `--dbname=${url}`,
          `--slot=${name}`,
          '--start',
          '--file=/dev/null',
          '--no-loop',
          '--fsync-interval=0',
          '--status-interval=1',
          '--option=proto_version=1',
          `--option=publication_names=${name}`,
        ],
        {log},
      )
    : startPeer(
        'the reader',
        process.execPath,
        [fileURLToPath(new URL('drop-frames.ts', import.meta.url)), url, name],
        {log},
      );
  return {
    processes: {client: [client.pid]},
    failed: client.failed,
    ready: () => until(async () => (await walsender(ground)) !== undefined, READY_MS, 'the slot streams'),
    reader: () => walsender(ground),
    async arrived({position}) {
      const {rows} = await world.pg.query<{sent: boolean}>(
        `SELECT r.sent_lsn >= $2::pg_lsn AS sent FROM pg_replication_slots s
         JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1`,
        [name, position],
      );
      return rows[0]?.sent ?? false;
    },
    stop: client.stop,
  };
}

/** One `COPY … TO STDOUT` piped into one `INSERT … FORMAT TabSeparated`, for each table after the other. */
export async function startCopy(ground: Ground): Promise<Working> {
  const {name, world, workload} = ground;
  const {client, settings} = world;
  const database = `${name}_copy`;
  await command(client, `CREATE DATABASE ${chName(database)}`);
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {});
  let done = false;
  const copy = async (): Promise<void> => {
    for (const table of workload.tables) {
      const target = chName(database, table);
      const columns = columnList(await targetColumns(world, table));
      await command(client, `CREATE TABLE ${target} (${columns}) ENGINE = MergeTree ORDER BY id`);
      const postgres = new pg.Client(settings.FRESHET_PG_URL);
      await postgres.connect();
      await postgres.query("SET timezone = 'UTC'");
      const result = await client.exec({
        query: `INSERT INTO ${target} FORMAT TabSeparated`,
        values: postgres.query(copyTo(`COPY ${table} TO STDOUT`)) as Readable,
      });
      for await (const _ of result.stream);
      await postgres.end();
    }
    done = true;
  };
  copy().catch(failed.reject);
  const current = (table: string): string => chName(database, table);
  const arrived = arrivedIn(ground, current);
  return {
    processes: {copy: [process.pid]},
    failed: failed.promise,
    ready: async () => {},
    reader: async () => undefined,
    arrived: async written => done && (await arrived(written)),
    target: {current, rows: current, databases: [database]},
    stop: () => command(client, `DROP DATABASE IF EXISTS ${chName(database)} SYNC`),
  };
}
