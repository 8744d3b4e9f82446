// node scripts/bench/copy.ts [rows, 1,000,000 by default] [repeats, 3 by default]: one worker of a snapshot, by the
// encoder and with COPY's bytes as they are, beside `COPY | INSERT … FORMAT TabSeparated` with nothing else to it.
import type {Readable} from 'node:stream';
import pg from 'pg';
import {to as copyTo} from 'pg-copy-streams';
import {textTable} from '../../cdc/observe/text-table.ts';
import {chName, command, insertCopyText} from '../../cdc/sink/clickhouse.ts';
import {SnapshotBatch} from '../../cdc/sink/snapshot-batch.ts';
import {copyStatement, createTarget, targetTable} from '../../cdc/sink/target.ts';
import {chunksLeft, planChunks} from '../../cdc/snapshot/plan.ts';
import {clientConfig, readServerVersion, withClient} from '../../cdc/source/postgres.ts';
import {readSnapshot} from '../../cdc/source/snapshot.ts';
import {planTables} from '../../cdc/source/tables.ts';
import {linesSql, withWorld} from './world.ts';

const count = Number(process.argv[2] ?? 1_000_000);
const repeats = Number(process.argv[3] ?? 3);
const point = {version: 1n, commitMicros: 0n};
const {signal} = new AbortController();

await withWorld(
  'bench_copy',
  {sql: `${linesSql(count)}; CREATE PUBLICATION bench_copy FOR ALL TABLES`},
  async ({pg: holder, client, settings}) => {
    const database = settings.FRESHET_CLICKHOUSE_DATABASE;
    await command(client, `CREATE DATABASE IF NOT EXISTS ${database}`);
    const {planned, table} = await withClient(clientConfig(settings), async postgres => {
      const {captured} = await planTables(postgres, settings, await readServerVersion(postgres));
      return {planned: await planChunks(postgres, captured, settings), table: captured[0]!};
    });
    await createTarget(client, settings, table.schema);
    const target = targetTable(settings, table.schema);
    const bare = chName(database, 'bare');
    const columns = table.schema.columns.map(({name, stored}) => `${chName(name)} ${stored.column}`);
    await command(client, `CREATE TABLE ${bare} (${columns.join(', ')}) ENGINE = MergeTree ORDER BY id`);
    await holder.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
    const {rows} = await holder.query<{name: string}>('SELECT pg_export_snapshot() AS name');
    const snapshot = (plain: boolean) => async (): Promise<void> => {
      const [read] = await readSnapshot({
        config: clientConfig(settings),
        settings,
        tables: planned.map(one => ({table: one.table, chunks: chunksLeft(one)})),
        snapshotName: rows[0]!.name,
        workers: 1,
        batchBytes: settings.FRESHET_BATCH_BYTES,
        newBatch: schema => new SnapshotBatch({client, settings, table: schema}, point),
        ...(plain && {
          pipe: async (schema, data) => {
            await insertCopyText(client, copyStatement(settings, schema, point), data, signal);
            return true;
          },
        }),
        onProgress: () => {},
        signal,
      });
      if (read?.unaltered === undefined) throw new Error('the table was not read');
    };
    const yardstick = async (): Promise<void> => {
      const postgres = new pg.Client(settings.FRESHET_PG_URL);
      await postgres.connect();
      await postgres.query("SET timezone = 'UTC'");
      const result = await client.exec({
        query: `INSERT INTO ${bare} FORMAT TabSeparated`,
        values: postgres.query(copyTo('COPY lines TO STDOUT')) as Readable,
      });
      for await (const _ of result.stream);
      await postgres.end();
    };
    const ways = {'COPY | INSERT': yardstick, 'as it is': snapshot(true), encoder: snapshot(false)};
    const told: Record<string, unknown>[] = [];
    for (let repeat = 1; repeat <= repeats; repeat++) {
      for (const [way, work] of Object.entries(ways)) {
        for (const name of [target, bare]) await command(client, `TRUNCATE TABLE ${name}`);
        const before = process.cpuUsage();
        const since = performance.now();
        await work();
        const seconds = (performance.now() - since) / 1000;
        const {user, system} = process.cpuUsage(before);
        told.push({
          way,
          repeat,
          seconds: seconds.toFixed(1),
          'rows/s': Math.round(count / seconds).toLocaleString('en'),
          "µs/row of Node's CPU": ((user + system) / count).toFixed(2),
        });
      }
    }
    await holder.query('ROLLBACK');
    console.log(textTable(told.sort((a, b) => String(a.way).localeCompare(String(b.way)))));
  },
);
process.exit();
