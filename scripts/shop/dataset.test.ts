import {existsSync} from 'node:fs';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {gzipSync} from 'node:zlib';
import test, {type ExecutionContext} from 'ava';
import {skip} from '../stack/skip.ts';
import {loadDataset, shopTotals} from './dataset.ts';
import {type BadLine, COLUMNS} from './dataset-lines.ts';
import {shopState} from './schema.ts';
import {testDatabase} from './test-database.ts';

async function file(t: ExecutionContext, name: string, contents: string | Buffer): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'shop-'));
  t.teardown(() => rm(folder, {recursive: true}));
  await writeFile(path.join(folder, name), contents);
  return path.join(folder, name);
}

const HEADER = COLUMNS.join(',');
const ODD = [
  `\uFEFF${HEADER}`,
  '536365,85123A,WHITE HEART,6,2010-12-01 08:26:00,2.55,17850,United Kingdom',
  '536365,85123A,WHITE HEART,2,2010-12-01 08:26:00,2.55,17850,United Kingdom',
  '536365,85123a,"SET OF 2 ""TEA"", £1 \\ TINS",1,2010-12-01 08:25:00,3.395,17850,United Kingdom',
  '536366,71053,,1,2010-12-01 08:30:00,0.0,,France',
  '',
  '536367,71053,"NOT CLOSED,1,2010-12-01 08:31:00,1.0,17850,France',
  'C536368,85123A,heart again,-6,2011-11-02 09:00:00,2.75,17850,Cyprus',
  'A563186,B,Adjust bad debt,1,2011-08-12 14:51:00,-11062.06,,United Kingdom',
  '536369,71053,LANTERN,1.5,2011-02-29 08:31:00,1.0,17850,France',
  '536369,71053,LANTERN,1,2011-02-29 08:31:00,1.0,17850,France',
  '536369,71053,LANTERN,1,2011-02-28 08:31:00,1.00001,17850,France',
  '536369,71053,LANTERN,1,2011-02-28 08:31:00,1.0,17850',
  '536365,71053,LANTERN,1,2010-12-01 08:27:00,9.0,17850,United Kingdom',
].join('\r\n');

test('odd lines arrive as they are; those that cannot be read are named', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  const heard: BadLine[] = [];
  const csv = await file(t, 'odd.csv', ODD);
  const loaded = await loadDataset(db.url, csv, {onBadLine: bad => heard.push(bad)});
  t.deepEqual(
    loaded.bad.first.map(({line, reason}) => [line, reason.split(':')[0]]),
    [
      [7, 'a quote in the wrong place, or not closed'],
      [10, 'Quantity is not a whole number'],
      [11, 'InvoiceDate is not YYYY-MM-DD HH'],
      [12, 'UnitPrice is not a price with up to 3 decimals'],
      [13, '7 columns instead of 8'],
    ],
  );
  t.is(loaded.bad.count, 5);
  t.deepEqual(heard, loaded.bad.first);
  const sums = {orders: 4, lines: 7, customers: 1, countries: 3, lineTotal: '-11045.765'};
  t.like(loaded, sums);
  t.deepEqual(await shopTotals(db.url), sums);
  t.like(await shopState(db.url), {state: 'loaded', what: 'odd.csv', seed: null});

  const orders = `SELECT order_no || ' ' || status || ' ' || coalesce(c.external_id, '-') || ' ' || o.country || ' '
    || o.currency || ' ' || to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') AS line
    FROM orders o LEFT JOIN customers c ON c.id = o.customer_id ORDER BY o.id`;
  t.deepEqual(
    (await db.rows<{line: string}>(orders)).map(row => row.line),
    [
      '536365 delivered 17850 United Kingdom GBP 2010-12-01 08:25',
      '536366 delivered - France GBP 2010-12-01 08:30',
      'C536368 return 17850 Cyprus GBP 2011-11-02 09:00',
      'A563186 delivered - United Kingdom GBP 2011-08-12 14:51',
    ],
  );
  t.deepEqual(
    await db.rows(`SELECT line_no, sku, i.description, quantity, unit_price,
      to_char(ordered_at AT TIME ZONE 'UTC', 'HH24:MI') AS at
      FROM order_items i JOIN products p ON p.id = product_id WHERE order_id = 1 ORDER BY line_no`),
    [
      {line_no: 1, sku: '85123A', description: 'WHITE HEART', quantity: 6, unit_price: '2.550', at: '08:26'},
      {line_no: 2, sku: '85123A', description: 'WHITE HEART', quantity: 2, unit_price: '2.550', at: '08:26'},
      {
        line_no: 3,
        sku: '85123a',
        description: 'SET OF 2 "TEA", £1 \\ TINS',
        quantity: 1,
        unit_price: '3.395',
        at: '08:25',
      },
      {line_no: 4, sku: '71053', description: 'LANTERN', quantity: 1, unit_price: '9.000', at: '08:27'},
    ],
  );
  t.deepEqual(await db.rows('SELECT sku, name, price FROM products ORDER BY id'), [
    {sku: '85123A', name: 'heart again', price: '2.750'},
    {sku: '85123a', name: 'SET OF 2 "TEA", £1 \\ TINS', price: '3.395'},
    {sku: '71053', name: 'LANTERN', price: '9.000'},
    {sku: 'B', name: 'Adjust bad debt', price: '0.000'},
  ]);
  t.deepEqual(await db.rows('SELECT external_id, name, country FROM customers'), [
    {external_id: '17850', name: 'Customer 17850', country: 'Cyprus'},
  ]);
});

test('gzip is told by its bytes, and a cut-off file is no finished load', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  const gzipped = gzipSync(ODD);
  t.is((await loadDataset(db.url, await file(t, 'odd.data', gzipped))).lines, 7);
  await t.throwsAsync(loadDataset(db.url, await file(t, 'cut.data', gzipped.subarray(0, 300))), {
    message: /unexpected end of file/,
  });
  t.deepEqual(await shopState(db.url), {state: 'unfinished', what: 'cut.data'});
});

test('another header is refused by what is wrong with it; another order of columns is not', async t => {
  const db = await testDatabase(t);
  if (!db) return;
  const load = async (contents: string) => loadDataset(db.url, await file(t, 'x.csv', contents));
  const other = HEADER.replace('StockCode,', '').replace('CustomerID', 'Customer ID');
  await t.throwsAsync(load(`${other}\n`), {message: /missing StockCode, CustomerID; unknown "Customer ID"/});
  await t.throwsAsync(load(`${HEADER},Country\n`), {message: /a column stands twice/});
  await t.throwsAsync(load(''), {message: /is empty/});
  const turned = 'Country,CustomerID,UnitPrice,InvoiceDate,Quantity,Description,StockCode,InvoiceNo\n';
  const loaded = await load(`${turned}France,1,2.5,2011-01-02 03:04:05,4,Lamp,L1,77`);
  t.like(loaded, {orders: 1, lines: 1, lineTotal: '10.000', bad: {count: 0}});
});

const FULL = '../shared/data/online-retail.csv.gz';

test('the whole of Online Retail sums up to what is known of it', async t => {
  if (!existsSync(FULL)) {
    skip(t, `no ${path.basename(FULL)} beside the project`);
    return;
  }
  t.timeout(120_000);
  const db = await testDatabase(t);
  if (!db) return;
  const loaded = await loadDataset(db.url, FULL);
  t.deepEqual(loaded, {
    orders: 25_900,
    lines: 541_909,
    customers: 4_372,
    countries: 38,
    lineTotal: '9747747.934',
    bad: {count: 0, first: []},
  });
  const [more] = await db.rows(`
    SELECT sum(quantity * unit_price) FILTER (WHERE date_trunc('month', ordered_at, 'UTC') = '2011-11-01Z') AS november,
      (SELECT count(*)::int FROM products) AS codes, count(*) FILTER (WHERE unit_price < 0)::int AS negative
    FROM order_items`);
  t.deepEqual(more, {november: '1461756.250', codes: 4_070, negative: 2});
});
