import {readFileSync} from 'node:fs';
import test from 'ava';
import {command} from '../sink/clickhouse.ts';
import {startPipeline} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {completeUpTo, sourceMicros} from './testing/complete-up-to.ts';

const SHOP = readFileSync(new URL('../../scripts/shop/schema.sql', import.meta.url), 'utf8');
/** Longer than the holder needs to write down how far it is, several times. */
const A_WHILE_MICROS = 6_000_000n;

test('the metrics hold whatever was committed before they are complete, and stand still without their rollups', async t => {
  const world = await startPipeline(
    t,
    `${SHOP};
     INSERT INTO products (sku, name, price) VALUES ('s', 'Mug', 2.5);
     INSERT INTO customers (name, country) VALUES ('Ada', 'GB');`,
  );
  const {pg, ch, settings, query} = world;
  await world.caughtUp();
  let orders = 0;
  /** Gives when it was committed, µs. */
  const order = async (): Promise<bigint> => {
    orders += 1;
    await pg.query(
      `WITH placed AS (
         INSERT INTO orders (order_no, customer_id, status, country, currency)
         SELECT 'N' || $1::text, id, 'pending', 'GB', 'GBP' FROM customers RETURNING id
       )
       INSERT INTO order_items (order_id, line_no, product_id, quantity, unit_price, ordered_at)
       SELECT placed.id, 1, products.id, 1, 2.5, now() FROM placed, products`,
      [orders],
    );
    return sourceMicros(world);
  };
  const shown = async (): Promise<unknown> =>
    (
      await query(
        'SELECT toString(sum(orders)) AS orders, toString(sum(revenue)) AS revenue FROM {an}.daily_sales_summary',
      )
    )[0];
  const wanted = () => ({orders: `${orders}`, revenue: String(orders * 2.5)});
  for (let round = 0; round < 5; round++) {
    const at = await order();
    await until(async () => (await completeUpTo(world)) >= at);
    t.deepEqual(await shown(), wanted());
  }

  const table = `${settings.FRESHET_CLICKHOUSE_DATABASE}._order_lines_v1`;
  await command(ch, `RENAME TABLE ${table} TO ${table}_aside`);
  const at = await order();
  await until(async () => (await completeUpTo(world, 'public.orders')) >= at + A_WHILE_MICROS);
  t.true((await completeUpTo(world)) < at);
  await command(ch, `RENAME TABLE ${table}_aside TO ${table}`);
  await until(async () => (await completeUpTo(world)) >= at);
  t.deepEqual(await shown(), wanted());
});
