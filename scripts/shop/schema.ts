import {readFile} from 'node:fs/promises';
import {Client} from 'pg';

/** What the shop's database holds. `unfinished`: a load is running, or was killed; the next load starts from scratch. */
export type ShopState =
  | {state: 'empty'}
  | {state: 'unfinished'; what: string}
  | {state: 'loaded'; what: string; seed: string | null; finishedAt: Date};

/** Called now and then while a load runs; `total` is 0 where it cannot be known. */
export type Progress = (step: {done: number; total: number; what: string}) => void;

/** Makes the shop's tables, or leaves them as they are. Fails where the database has other tables of those names. */
export async function createShop(pgUrl: string): Promise<void> {
  const sql = await readFile(new URL('schema.sql', import.meta.url), 'utf8');
  await connected(pgUrl, client => client.query(sql));
}

/** Says which load filled the shop. A database without the shop's tables is `empty`. */
export async function shopState(pgUrl: string): Promise<ShopState> {
  return connected(pgUrl, async client => {
    const made = await client.query<{made: boolean}>(
      `SELECT to_regclass('shop.shop_meta') IS NOT NULL AS made`,
    );
    if (!made.rows[0]!.made) return {state: 'empty'};
    type Row = {what: string; seed: string | null; finished_at: Date | null};
    const {rows} = await client.query<Row>('SELECT what, seed, finished_at FROM shop.shop_meta');
    const meta = rows[0];
    if (!meta) return {state: 'empty'};
    if (!meta.finished_at) return {state: 'unfinished', what: meta.what};
    return {state: 'loaded', what: meta.what, seed: meta.seed, finishedAt: meta.finished_at};
  });
}

/**
 * Runs one load over an emptied shop (made first if need be) and notes that it finished. Two loads at once would mix
 * their rows, so the second is refused. A load that fails or is killed leaves the note `unfinished`.
 */
export async function runLoad<T>(
  pgUrl: string,
  load: {what: string; seed?: number},
  fill: (client: Client) => Promise<T>,
): Promise<T> {
  await createShop(pgUrl);
  return connected(pgUrl, async client => {
    const lock = await client.query<{got: boolean}>(
      `SELECT pg_try_advisory_lock(hashtextextended('freshet.shop.load', 0)) AS got`,
    );
    if (!lock.rows[0]!.got) throw new Error('another load of the demo shop is running on this database');
    await client.query(
      `INSERT INTO shop.shop_meta (what, seed) VALUES ($1, $2)
       ON CONFLICT (only_row) DO UPDATE
       SET what = excluded.what, seed = excluded.seed, started_at = now(), finished_at = NULL`,
      [load.what, load.seed ?? null],
    );
    await client.query('TRUNCATE public.order_items, public.orders, public.products, public.customers');
    const result = await fill(client);
    for (const table of ['customers', 'products', 'orders', 'order_items'])
      await client.query(
        `SELECT setval(pg_get_serial_sequence('public.${table}', 'id'), coalesce(max(id), 0) + 1, false)
         FROM public.${table}`,
      );
    await client.query('ANALYZE public.customers, public.products, public.orders, public.order_items');
    await client.query('UPDATE shop.shop_meta SET finished_at = clock_timestamp()');
    return result;
  });
}

/** Gives `use` a connection of its own, closed afterwards (which also gives back its locks and temporary tables). */
export async function connected<T>(pgUrl: string, use: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({connectionString: pgUrl, application_name: 'freshet shop'});
  client.on('error', () => {}); // the query that runs fails with it, too; unheard, the event would end the process
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
