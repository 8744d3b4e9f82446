// node scripts/bench/snapshot.ts [rows, 5,000,000 by default] [kills, 3 by default]: a snapshot that is killed on its
// way and goes on: how long it takes, how much memory the process needs, and whether a finished chunk is read twice.
import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {textTable} from '../../cdc/observe/text-table.ts';
import {verify} from '../../cdc/reconcile/verify.ts';
import {rows} from '../../cdc/sink/clickhouse.ts';
import {linesSql, withWorld} from './world.ts';

const count = Number(process.argv[2] ?? 5_000_000);
const kills = Number(process.argv[3] ?? 3);
const Chunks = z.object({
  read: z.coerce.number(),
  chunks: z.coerce.number(),
  all: z.coerce.number(),
  points: z.coerce.number(),
  rows: z.coerce.number(),
});
const Done = z.object({done: z.number()});

console.log(`writing ${count.toLocaleString('en')} rows`);
const overrides = {FRESHET_SNAPSHOT_CHUNK_BYTES: String(16 << 20)};
await withWorld(
  'bench_snapshot',
  {sql: linesSql(count), overrides},
  async ({pg, client, settings, freshet}) => {
    const database = settings.FRESHET_CLICKHOUSE_DATABASE;
    const chunks = async (): Promise<z.infer<typeof Chunks>> => {
      const [found] = await rows(
        client,
        Chunks,
        `SELECT count() AS read, uniqExact(chunk) AS chunks, (SELECT sum(chunks) FROM ${database}._snapshots FINAL) AS all,
         uniqExact(read_at_point) AS points, sum(rows) AS rows FROM ${database}._snapshot_chunks`,
      ).catch(() => []);
      return found ?? {read: 0, chunks: 0, all: 0, points: 0, rows: 0};
    };
    const done = async (): Promise<boolean> => {
      const found = await rows(
        client,
        Done,
        `SELECT snapshot_done AS done FROM ${database}._source FINAL`,
      ).catch(() => []);
      return found[0]?.done === 1;
    };
    const told: Record<string, unknown>[] = [];
    for (let kill = 0; kill <= kills; kill++) {
      const before = await chunks();
      const since = Date.now();
      const run = freshet('run');
      const enough = async (): Promise<boolean> => {
        if (kill === kills) return done();
        const {chunks: read, all} = await chunks();
        return all > 0 && read >= (all * (kill + 1)) / (kills + 1);
      };
      while (!(await enough())) await sleep(100);
      const seconds = (Date.now() - since) / 1000;
      if (kill < kills) {
        run.child.kill('SIGKILL');
        await run.ended;
        await pg.query(
          `DELETE FROM lines WHERE id % 1000 = ${kill}; UPDATE lines SET quantity = quantity + 1 WHERE id % 1000 = ${kill + 100};
         UPDATE lines SET id = -id WHERE id % 1000 = ${kill + 200}`,
        );
      }
      const after = await chunks();
      const read = after.rows - before.rows;
      told.push({
        run: kill < kills ? `killed ${kill + 1}` : 'to its end',
        chunks: `${after.chunks} of ${after.all}`,
        rows: read.toLocaleString('en'),
        seconds: seconds.toFixed(1),
        'rows/s': Math.round(read / seconds).toLocaleString('en'),
        'most MiB': run.mebibytes(),
      });
    }
    console.log(textTable(told));
    const {read, chunks: different, points} = await chunks();
    console.log(`${different} chunks, ${read - different} of them read again, at ${points} points`);
    const verdicts = await verify({client, settings});
    for (const {table, verdict, rows: counted} of verdicts)
      console.log(`${table}: ${verdict}, ${counted.postgres.toLocaleString('en')} rows`);
    if (read !== different || verdicts.some(({verdict}) => verdict !== 'equal')) process.exitCode = 1;
  },
);
process.exit();
