import type {QueryResult, QueryResultRow} from 'pg';
import {randomDescription} from './catalogue.ts';
import {CURRENCY} from './money.ts';
import {randomCountry, randomPerson} from './people.ts';
import {longTail, type Random} from './random.ts';

/** Runs one statement in the job's transaction. */
export type Query = <R extends QueryResultRow>(sql: string, values?: unknown[]) => Promise<QueryResult<R>>;
/** Ids from `low` on; some between may be gone. Picks name the next id that is still there. */
export type IdRange = {low: bigint; size: number};
export type Known = {customers: IdRange; products: IdRange};
/** What happens now and then beside the orders. */
export type SideJob = (query: Query, known: Known, random: Random) => Promise<void>;

const idAt = (range: IdRange, index: number) => String(range.low + BigInt(index));
const anyId = (range: IdRange, random: Random) => idAt(range, random.between(0, Math.max(0, range.size - 1)));
/** The expression for `prefix` and an id of at least seven digits; lpad alone would cut longer ones. */
const numbered = (prefix: string) => `'${prefix}' || lpad(n.id::text, greatest(7, length(n.id::text)), '0')`;
const nextId = (table: string) => `(SELECT nextval(pg_get_serial_sequence('public.${table}', 'id')) AS id) n`;

/** Learns which ids there are, from both ends of two primary keys. */
export async function learn(query: Query): Promise<Known> {
  const range = async (table: string): Promise<IdRange> => {
    type Ends = {low: string | null; high: string | null};
    const {rows} = await query<Ends>(`SELECT min(id) AS low, max(id) AS high FROM public.${table}`);
    const {low, high} = rows[0]!;
    return low === null || high === null
      ? {low: 1n, size: 0}
      : {low: BigInt(low), size: Number(BigInt(high) - BigInt(low) + 1n)};
  };
  const known = {customers: await range('customers'), products: await range('products')};
  if (known.products.size === 0) throw new Error('the shop has no products: load it before starting traffic');
  return known;
}

/** Places one order with its lines and gives its id. The draws come first: they don't depend on what else runs. */
export async function placeOrder(
  query: Query,
  {customers, products}: Known,
  random: Random,
): Promise<string> {
  // A mild preference for the older customers, so that some come back often.
  const buyer = Math.floor(customers.size * random.next() ** 1.5);
  const customer = random.chance(0.07) ? null : idAt(customers, buyer);
  const guestCountry = randomCountry(random);
  const basket = new Map<string, number>();
  do
    basket.set(
      idAt(products, longTail(random, products.size)),
      random.chance(0.8) ? random.between(1, 3) : 12,
    );
  while (basket.size < Math.min(12, products.size) && random.chance(0.6));

  // KEY SHARE: should this customer be erased just now, the order waits and becomes a guest's.
  const order = await query<{id: string}>(
    `INSERT INTO public.orders (id, order_no, customer_id, status, country, currency)
     SELECT n.id, ${numbered('W')}, c.id, 'pending', coalesce(c.country, $2), $3
     FROM ${nextId('orders')} LEFT JOIN LATERAL (
       SELECT id, country FROM public.customers WHERE id >= $1 ORDER BY id LIMIT 1 FOR KEY SHARE
     ) c ON true
     RETURNING id`,
    [customer, guestCountry, CURRENCY],
  );
  const {id} = order.rows[0]!;
  const lines = await query(
    `INSERT INTO public.order_items
       (order_id, line_no, product_id, description, quantity, unit_price, ordered_at)
     SELECT $1, l.line_no, p.id, p.name, l.quantity, p.price, now()
     FROM unnest($2::bigint[], $3::int[]) WITH ORDINALITY AS l (product_id, quantity, line_no)
     CROSS JOIN LATERAL (SELECT id, name, price FROM public.products WHERE id >= l.product_id ORDER BY id LIMIT 1) p`,
    [id, [...basket.keys()], [...basket.values()]],
  );
  if (lines.rowCount === 0) throw new Error('no product left to order');
  return id;
}

/** Moves an order from one state to the next; false where it is gone or was moved by someone else. */
export async function moveOrder(query: Query, id: string, from: string, to: string): Promise<boolean> {
  if (to === 'refunded') return refundOrder(query, id);
  const moved = await query(
    `UPDATE public.orders SET status = $3, updated_at = now() WHERE id = $1 AND status = $2`,
    [id, from, to],
  );
  return moved.rowCount === 1;
}

async function refundOrder(query: Query, id: string): Promise<boolean> {
  // The customer is locked before the order, as an erasure does it: the other way round the two deadlock.
  await query(
    `SELECT FROM public.customers WHERE id = (SELECT customer_id FROM public.orders WHERE id = $1) FOR KEY SHARE`,
    [id],
  );
  const refunded = await query(
    `UPDATE public.orders SET status = 'refunded', updated_at = now() WHERE id = $1 AND status = 'delivered'`,
    [id],
  );
  if (refunded.rowCount === 0) return false;
  const back = await query<{id: string}>(
    `INSERT INTO public.orders (id, order_no, customer_id, status, country, currency, returns_order_id)
     SELECT n.id, ${numbered('R')}, o.customer_id, 'return', o.country, o.currency, o.id
     FROM ${nextId('orders')}, public.orders o WHERE o.id = $1 RETURNING id`,
    [id],
  );
  await query(
    `INSERT INTO public.order_items (order_id, line_no, product_id, description, quantity, unit_price, ordered_at)
     SELECT $2, line_no, product_id, description, -quantity, unit_price, now()
     FROM public.order_items WHERE order_id = $1 ORDER BY line_no`,
    [id, back.rows[0]!.id],
  );
  return true;
}

/** Each side job and how many orders go by, on average, between two of it. */
export const SIDE_JOBS: readonly {job: SideJob; oneIn: number}[] = [
  {oneIn: 10, job: newCustomer},
  {oneIn: 15, job: changePrice},
  {oneIn: 25, job: moveHouse},
  {oneIn: 60, job: advanceForgottenOrder},
  {oneIn: 300, job: rewriteDescription},
  {oneIn: 500, job: eraseCustomer},
];

async function newCustomer(query: Query, _: Known, random: Random): Promise<void> {
  const {name, email, country, address} = randomPerson(random);
  await query(
    `INSERT INTO public.customers (id, external_id, name, email, country, address)
     SELECT n.id, ${numbered('CU')}, $1, $2, $3, $4 FROM ${nextId('customers')}`,
    [name, email, country, address],
  );
}

/** Leaves the long description alone, which PostgreSQL then doesn't send again. A price of 0 or below stays. */
async function changePrice(query: Query, {products}: Known, random: Random): Promise<void> {
  await query(
    `UPDATE public.products SET price = greatest(round(price * $2::int / 100, 2), 0.01), updated_at = now()
     WHERE id = $1 AND price > 0`,
    [anyId(products, random), random.pick([90, 95, 98, 102, 105, 111])],
  );
}

async function moveHouse(query: Query, {customers}: Known, random: Random): Promise<void> {
  const {country, address} = randomPerson(random);
  await query(`UPDATE public.customers SET country = $2, address = $3, updated_at = now() WHERE id = $1`, [
    anyId(customers, random),
    country,
    address,
  ]);
}

/** Takes the oldest order that nobody moves on (the process that placed it has ended) one state further. */
async function advanceForgottenOrder(query: Query): Promise<void> {
  await query(`
    UPDATE public.orders SET updated_at = now(), status =
      CASE status WHEN 'pending' THEN 'paid' WHEN 'paid' THEN 'shipped' ELSE 'delivered' END::order_status
    WHERE id = (
      SELECT id FROM public.orders
      WHERE status IN ('pending', 'paid', 'shipped') AND updated_at < now() - interval '30 minutes'
      ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    )`);
}

async function rewriteDescription(query: Query, {products}: Known, random: Random): Promise<void> {
  await query('UPDATE public.products SET description = $2, updated_at = now() WHERE id = $1', [
    anyId(products, random),
    randomDescription(random),
  ]);
}

/** A customer asks to be forgotten: the account, its orders and their lines go in one transaction. */
async function eraseCustomer(query: Query, {customers}: Known, random: Random): Promise<void> {
  const found = await query<{id: string}>(
    'SELECT id FROM public.customers WHERE id >= $1 ORDER BY id LIMIT 1 FOR UPDATE',
    [anyId(customers, random)],
  );
  const id = found.rows[0]?.id;
  if (!id) return;
  await query(
    'DELETE FROM public.order_items USING public.orders o WHERE order_items.order_id = o.id AND o.customer_id = $1',
    [id],
  );
  await query('DELETE FROM public.orders WHERE customer_id = $1', [id]);
  await query('DELETE FROM public.customers WHERE id = $1', [id]);
}
