import type {Client} from 'pg';
import {randomProduct} from './catalogue.ts';
import {copyRows} from './copy.ts';
import {CURRENCY, formatMills} from './money.ts';
import {type Order, orderHistory} from './order-history.ts';
import {randomPerson} from './people.ts';
import {createRandom} from './random.ts';
import {type Progress, runLoad} from './schema.ts';

/** Orders are loaded so many at a time, each part its own transaction, as a shop's import would do it. */
const ORDERS_A_PART = 5_000;
const DAY = 24 * 3_600_000;

export type History = {
  seed: number;
  customers?: number;
  products?: number;
  days?: number;
  now?: Date;
  progress?: Progress;
};

/**
 * Replaces the shop's contents by `days` days of made-up trade that end at `now`; nothing is later than that. The
 * same numbers, seed and `now` give the same rows. 90 days are about 28,000 orders, whatever the other numbers.
 */
export async function loadHistory(
  pgUrl: string,
  {seed, customers = 10_000, products = 1_000, days = 90, now = new Date(), progress = () => {}}: History,
): Promise<{customers: number; products: number; orders: number}> {
  if (products < 1 || customers < 0 || days <= 0)
    throw new RangeError(
      `the demo shop needs products and days: ${JSON.stringify({customers, products, days})}`,
    );
  const nowMs = now.getTime();
  return runLoad(pgUrl, {what: 'history', seed}, async client => {
    progress({done: 0, total: products, what: 'products'});
    const catalogue = await loadProducts(client, {seed, count: products, madeMs: nowMs - 2 * days * DAY});
    progress({done: 0, total: customers, what: 'customers'});
    const buyers = await loadCustomers(client, {seed, count: customers, days, nowMs});
    const orders = orderHistory(createRandom(seed, 'orders'), {buyers, products: catalogue, days, nowMs});
    let items = 0;
    for (let done = 0; done < orders.length; done += ORDERS_A_PART) {
      progress({done, total: orders.length, what: 'orders'});
      items = await loadOrders(client, orders.slice(done, done + ORDERS_A_PART), items);
    }
    progress({done: orders.length, total: orders.length, what: 'orders'});
    return {customers, products, orders: orders.length};
  });
}

async function loadProducts(
  client: Client,
  {seed, count, madeMs}: {seed: number; count: number; madeMs: number},
) {
  const random = createRandom(seed, 'products');
  const catalogue = Array.from({length: count}, (_, index) => randomProduct(random, index + 1));
  const made = iso(madeMs);
  await copyRows(
    client,
    'public.products (id, sku, name, category, price, attributes, description, created_at, updated_at)',
    catalogue.map(({sku, name, category, mills, attributes, description}, index) => {
      return [index + 1, sku, name, category, formatMills(mills), attributes, description, made, made];
    }),
  );
  return catalogue;
}

async function loadCustomers(
  client: Client,
  {seed, count, days, nowMs}: {seed: number; count: number; days: number; nowMs: number},
) {
  const random = createRandom(seed, 'customers');
  // Most were customers before the history begins; the others come while it goes on.
  const people = Array.from({length: count}, () => ({
    ...randomPerson(random),
    createdMs: nowMs - Math.floor(days * DAY * (random.chance(0.6) ? 1 + 4 * random.next() : random.next())),
    activity: Math.max(0.02, random.next() ** 4), // a few buy again and again
  })).sort((one, other) => one.createdMs - other.createdMs);
  await copyRows(
    client,
    'public.customers (id, external_id, name, email, country, address, created_at, updated_at)',
    people.map(({name, email, country, address, createdMs}, index) => {
      const made = iso(createdMs);
      return [
        index + 1,
        `CU${String(index + 1).padStart(7, '0')}`,
        name,
        email,
        country,
        address,
        made,
        made,
      ];
    }),
  );
  return people;
}

/** Loads the orders, then their lines, whose ids go on after `lastItem`; gives the last line's id. */
async function loadOrders(client: Client, orders: readonly Order[], lastItem: number): Promise<number> {
  await client.query('BEGIN'); // an order is never seen without its lines
  await copyRows(
    client,
    'public.orders (id, order_no, customer_id, status, country, currency, returns_order_id, created_at, updated_at)',
    orders.map(({id, customerId, status, country, returns, createdMs, updatedMs}) => {
      const orderNo = `${returns ? 'R' : 'W'}${String(id).padStart(7, '0')}`;
      return [
        id,
        orderNo,
        customerId,
        status,
        country,
        CURRENCY,
        returns?.id ?? null,
        iso(createdMs),
        iso(updatedMs),
      ];
    }),
  );
  let item = lastItem;
  const lines = orders.flatMap(({id, lines, createdMs}) =>
    lines.map(({productId, description, quantity, mills}, index) => {
      item++;
      return [item, id, index + 1, productId, description, quantity, formatMills(mills), iso(createdMs)];
    }),
  );
  const columns = 'id, order_id, line_no, product_id, description, quantity, unit_price, ordered_at';
  await copyRows(client, `public.order_items (${columns})`, lines);
  await client.query('COMMIT');
  return item;
}

const iso = (ms: number) => new Date(ms).toISOString();
