import type {TestDatabase} from '../../scripts/shop/test-database.ts';
import type {TestWarehouse} from './warehouse.ts';

type Row = Record<string, string | number | null>;
export type ShopRows = Record<'customers' | 'products' | 'orders' | 'order_items', Row[]>;

const hoursAgo = (hours: number) => new Date(Date.now() - hours * 3_600_000).toISOString();

const customer = (id: number, name: string, country: string): Row => ({
  id,
  name,
  country,
  created_at: '2024-12-01T00:00:00Z',
  updated_at: '2024-12-01T00:00:00Z',
});
const product = (id: number, price: string, name: string | null, category: string | null): Row => ({
  id,
  sku: `SKU-${id}`,
  name,
  category,
  price,
  attributes: '{}',
  created_at: '2024-12-01T00:00:00Z',
  updated_at: '2024-12-01T00:00:00Z',
});

/**
 * A small shop with every odd case. An order is [id, customer, status, placed at, lines, order it returns], a line
 * [product, quantity, price, own time where it is not the order's].
 */
type Line = [product: number, quantity: number, price: string, at?: string];
type Order = [
  id: number,
  customer: number | null,
  status: string,
  at: string,
  lines: Line[],
  returns?: number,
];

export function shopRows(): ShopRows {
  const orders: Order[] = [
    // The last microsecond of a month, with a line of the next one.
    [
      1,
      1,
      'delivered',
      '2025-01-31T23:59:59.999999Z',
      [
        [1, 2, '9.990'],
        [5, 1, '4.500', '2025-02-01T00:00:00Z'],
      ],
    ],
    [2, null, 'paid', '2025-02-01T10:00:00Z', [[1, 3, '9.990']]],
    [
      3,
      2,
      'cancelled',
      '2025-02-01T11:00:00Z',
      [
        [3, 5, '1.005'],
        [1, 1, '9.990'],
      ],
    ],
    [4, 4, 'refunded', '2025-02-03T08:00:00Z', [[1, 10, '10.005']]],
    [
      5,
      4,
      'return',
      '2025-02-05T08:00:00Z',
      [
        [1, -10, '10.005'],
        [5, -1, '0.001'],
      ],
      4,
    ],
    // Sales without lines on the day of a return: the average is negative and ends in a 5 that must be rounded.
    [6, 1, 'paid', '2025-02-05T09:00:00Z', []],
    [7, 2, 'cancelled', '2025-02-05T09:30:00Z', []],
    [8, 9, 'paid', '2025-02-05T10:00:00Z', []],
    // A customer with nothing but a return, and of a product that was never sold.
    [9, 7, 'return', '2025-03-01T00:00:00Z', [[4, -2, '3.333']]],
    // Lines on two other days; the same product twice in one order.
    [
      10,
      1,
      'shipped',
      '2025-03-01T00:00:00Z',
      [
        [5, 1, '0.001', '2025-03-02T00:00:00Z'],
        [1, 2, '9.990', '2025-03-03T12:00:00Z'],
        [1, 1, '9.990', '2025-03-03T12:00:00Z'],
      ],
    ],
    // Cancelled first, bought later: the later day is the customer's first.
    [11, 8, 'cancelled', '2025-03-04T00:00:00Z', [[1, 1, '1.000']]],
    [12, 8, 'pending', '2025-03-06T00:00:00Z', [[1, 3, '0.333']]],
    // Past what Decimal64 holds.
    [
      13,
      1,
      'delivered',
      '2025-03-08T00:00:00Z',
      [
        [6, 2_000_000_000, '999999999.999'],
        [6, 2_000_000_000, '999999999.999'],
      ],
    ],
    // An average of thirds.
    [14, 1, 'paid', '2025-03-09T00:00:00Z', [[1, 1, '10.000']]],
    [15, 4, 'paid', '2025-03-09T01:00:00Z', []],
    [16, null, 'paid', '2025-03-09T02:00:00Z', []],
    // Around the midnights of New York's day of 23 hours.
    [17, 1, 'paid', '2025-03-09T04:59:59.999999Z', [[1, 1, '1.000']]],
    [18, 2, 'paid', '2025-03-10T03:59:59.999999Z', [[1, 2, '1.000', '2025-03-10T04:00:00Z']]],
    [19, 4, 'paid', '2025-03-10T04:00:00Z', [[1, 4, '1.000']]],
    // The last day.
    [
      20,
      6,
      'pending',
      hoursAgo(2),
      [
        [1, 7, '0.333'],
        [5, 1, '2.000', hoursAgo(1)],
      ],
    ],
    [21, 6, 'paid', hoursAgo(23.9), [[1, 1, '5.000']]],
    [22, 1, 'delivered', hoursAgo(26), [[1, 1, '6.000', hoursAgo(3)]]],
    [23, null, 'cancelled', hoursAgo(0.5), [[1, 4, '7.000']]],
    [24, 6, 'return', hoursAgo(0.1), [[1, -1, '0.333']], 20],
    [25, null, 'paid', hoursAgo(0.2), []],
    // Further off than ClickHouse's narrow types for times go.
    [26, 2, 'paid', '1950-02-28T23:59:59.999999Z', [[1, 3, '1.000', '1950-03-01T00:00:00Z']]],
    [27, 4, 'return', '2150-12-31T23:59:59Z', [[1, -1, '1.000']]],
  ];
  // More customers and products than the rankings show, with ties.
  for (let i = 100; i < 165; i++) {
    const lines: Line[] = [[i % 26 === 0 ? 1 : 100 + (i % 26), 1 + (i % 4), '2.500']];
    orders.push([i, i, 'delivered', `2025-04-${10 + (i % 7)}T12:00:00Z`, lines]);
    if (i % 3 === 0) orders.push([i + 1000, i, 'paid', '2025-05-01T00:00:00Z', [[100, 1, '1.000']]]);
  }
  const extra = Array.from({length: 65}, (_, i) => customer(100 + i, `Customer ${i}`, 'NL'));
  return {
    customers: [
      ...[
        'Ada',
        'Bob: only cancelled',
        "Cleo's: no order",
        'Dan',
        'Eve: no order',
        'Fay',
        'Gus: only a return',
      ].map((name, i) => customer(i + 1, name, ['DE', 'FR', 'GB'][i % 3]!)),
      customer(8, 'Hal', 'DE'),
      customer(9, 'Ida', 'US'),
      ...extra,
    ],
    products: [
      product(1, '9.990', 'Mug', 'Kitchen'),
      product(2, '1.000', 'Never sold', 'Kitchen'),
      product(3, '1.005', 'Only cancelled', 'Garden'),
      product(4, '3.333', 'Only returned', 'Garden'),
      product(5, '0.001', null, null),
      product(6, '999999999.999', 'Dear', 'Gold'),
      ...Array.from({length: 26}, (_, i) => product(100 + i, '2.500', `Product ${i}`, 'Bulk')),
    ],
    orders: orders.map(([id, customer_id, status, at, , returns]) => ({
      id,
      order_no: `N${id}`,
      customer_id,
      status,
      country: 'DE',
      currency: 'GBP',
      returns_order_id: returns ?? null,
      created_at: at,
      updated_at: at,
    })),
    order_items: orders.flatMap(([order_id, , , at, lines]) =>
      lines.map(([product_id, quantity, unit_price, own], i) => ({
        id: order_id * 10 + i,
        order_id,
        line_no: i + 1,
        product_id,
        quantity,
        unit_price,
        ordered_at: own ?? at,
      })),
    ),
  };
}

export async function fillPostgres({rows}: TestDatabase, shop: ShopRows): Promise<void> {
  for (const [table, values] of Object.entries(shop)) {
    await rows(`INSERT INTO ${table} SELECT * FROM jsonb_populate_recordset(NULL::${table}, $1)`, [
      JSON.stringify(values),
    ]);
  }
}

/** What an earlier version said, and must not be believed. */
const BEFORE: Record<keyof ShopRows, Row> = {
  customers: {name: 'before', country: 'XX'},
  products: {name: 'before', category: 'before', price: '77.000'},
  orders: {status: 'pending', customer_id: 3, created_at: '2025-06-01T00:00:00Z'},
  order_items: {quantity: 1000, unit_price: '500.000', ordered_at: '2025-06-01T00:00:00Z'},
};
/** Deleted rows; their deletions hold nothing but the key. */
const DELETED = [90_001, 90_002];

/** The same rows the way a stream can bring them: each twice, old versions late, deletions before and after. */
export async function fillClickHouse({client, databases, run}: TestWarehouse, shop: ShopRows): Promise<void> {
  for (const [name, values] of Object.entries(shop) as [keyof ShopRows, Row[]][]) {
    await run(`SYSTEM STOP MERGES {cdc}.public__${name}`); // FINAL must do the work
    const insert = (rows: Row[]) =>
      client.insert({
        table: `${databases.cdc}.public__${name}`,
        values: rows,
        format: 'JSONEachRow',
        clickhouse_settings: {date_time_input_format: 'best_effort'},
      });
    const newest = values.map(row => ({...row, _version: 20}));
    const older = values.map(row => ({...row, ...BEFORE[name], _version: 10}));
    const [early, late] = DELETED.map(id => ({...values[0]!, ...BEFORE[name], id, _version: 30}));
    const gone = DELETED.map(id => ({id, _version: 40, _is_deleted: 1}));
    await insert([...newest, early!]);
    await insert(gone);
    await insert([...older, late!]);
    await insert(newest);
    // A deletion that the row has outlived: it was made again under the same key.
    await insert(values.slice(0, 3).map(({id}) => ({id: id!, _version: 15, _is_deleted: 1})));
  }
}
