import {type ClickHouseClient, command} from '../../../cdc/sink/clickhouse.ts';

const DAYS = 730;
const PRODUCTS = 20_000;
const MILLION = 1_000_000;

/**
 * A shop of two years in ClickHouse alone, as a sink would have written it: so many orders, two lines each, a fifth
 * updated, one of a hundred deleted. Whatever an order holds follows from its number, so that it can be written again.
 */
export class BenchShop {
  readonly #client: ClickHouseClient;
  readonly #database: string;
  readonly orders: number;
  readonly customers: number;
  #version: number;
  #newest: number;
  readonly #openedAt = Math.floor(Date.now() / 1000);

  constructor(client: ClickHouseClient, database: string, orders: number) {
    this.#client = client;
    this.#database = database;
    this.orders = orders;
    this.customers = Math.ceil(orders / 20);
    this.#version = orders * 10;
    this.#newest = orders;
  }

  async fill(): Promise<void> {
    const {orders} = this;
    const times = 'now64(6), now64(6)';
    await this.#insert(
      'customers',
      'id, name, country, created_at, updated_at',
      `SELECT number + 1 AS id, concat('Customer ', toString(id)), ['DE', 'FR', 'GB', 'NL'][id % 4 + 1], ${times}, 1, 0 FROM numbers(${this.customers})`,
    );
    await this.#insert(
      'products',
      'id, sku, name, category, price, attributes, created_at, updated_at',
      `SELECT number + 1 AS id, concat('SKU-', toString(id)), concat('Product ', toString(id)), ['Home', 'Garden', 'Toys'][id % 3 + 1], toDecimal64(id % 100, 3), '{}', ${times}, 1, 0 FROM numbers(${PRODUCTS})`,
    );
    for (let from = 0; from < orders; from += MILLION) {
      const count = Math.min(MILLION, orders - from);
      const part = `numbers(${from}, ${count})`;
      await this.#orders(`SELECT toInt64(number + 1) AS id, 0 AS _changed FROM ${part}`, 'id');
      await this.#lines(`SELECT toInt64(number + 1) AS order_id FROM ${part}`, 'order_id');
      const touched = (share: number): string => `FROM ${part} WHERE cityHash64(number, 9) % 100 < ${share}`;
      await this.#orders(`SELECT toInt64(number + 1) AS id, 1 AS _changed ${touched(20)}`, `${orders} + id`);
      await this.#insert('orders', 'id', `SELECT number + 1, ${2 * orders} + number, 1 ${touched(1)}`);
    }
  }

  /** Changes as a shop at work makes them: for each new order two lines, and two older orders change. Gives how many. */
  async change(orders: number): Promise<number> {
    const from = this.#newest;
    this.#newest += orders;
    this.#version += 10 * orders;
    const version = this.#version;
    const fresh = `FROM numbers(${from}, ${orders})`;
    const aDay = Math.ceil(this.orders / DAYS);
    await Promise.all([
      this.#orders(
        `SELECT toInt64(number + 1) AS id, 0 AS _changed ${fresh}
         UNION ALL
         SELECT toInt64(greatest(1, ${from} - rand(1) % if(rand(2) % 5 = 0, ${90 * aDay}, ${3 * aDay}))), 1 FROM numbers(${2 * orders})`,
        `${version} + rowNumberInAllBlocks()`,
      ),
      this.#lines(`SELECT toInt64(number + 1) AS order_id ${fresh}`, `${version} + rowNumberInAllBlocks()`),
    ]);
    return 5 * orders;
  }

  /** What is newer than the shop's own orders came 200 a second since. */
  #at(order: string): string {
    const seconds = `if(${order} > ${this.orders}, (${this.orders} - ${order}) / 200, (${this.orders} - ${order}) * ${(DAYS * 86_400) / this.orders} + cityHash64(${order}, 3) % 1200)`;
    return `toDateTime64(${this.#openedAt} - toInt64(${seconds}), 6, 'UTC')`;
  }

  #orders(ids: string, version: string): Promise<void> {
    const pick = (salt: number): string => `cityHash64(id, ${salt})`;
    return this.#insert(
      'orders',
      'id, order_no, customer_id, status, country, currency, created_at, updated_at',
      `SELECT id, concat('N', toString(id)), if(${pick(1)} % 10 = 0, NULL, ${pick(2)} % ${this.customers} + 1),
         multiIf(${pick(4)} % 20 = 0, 'return', _changed = 0, 'pending', ${pick(5)} % 20 = 0, 'cancelled', 'delivered'),
         ['DE', 'FR', 'GB', 'NL'][${pick(6)} % 4 + 1], 'GBP', ${this.#at('id')}, now64(6), ${version}, 0 FROM (${ids})`,
    );
  }

  #lines(orders: string, version: string): Promise<void> {
    const pick = (salt: number): string => `cityHash64(id, ${salt})`;
    return this.#insert(
      'order_items',
      'id, order_id, line_no, product_id, quantity, unit_price, ordered_at',
      `SELECT 2 * order_id - line AS id, order_id, line + 1, toInt64(${PRODUCTS} * pow(${pick(1)} % 100000 / 100000, 3)) + 1,
         toInt32(${pick(2)} % 5 + 1) * if(cityHash64(order_id, 4) % 20 = 0, -1, 1), toDecimal64(${pick(3)} % 20000, 3) / 100,
         ${this.#at('order_id')}, ${version}, 0 FROM (SELECT order_id, arrayJoin([0, 1]) AS line FROM (${orders}))`,
    );
  }

  #insert(table: string, columns: string, select: string): Promise<void> {
    return command(
      this.#client,
      `INSERT INTO ${this.#database}.public__${table} (${columns}, _version, _is_deleted) ${select}`,
    );
  }
}
