import type {TestWarehouse} from '../../../clickhouse/testing/warehouse.ts';
import {createRandom, type Random} from '../../../scripts/shop/random.ts';

type Row = Record<string, string | number | null>;
type Table = 'customers' | 'products' | 'orders' | 'order_items';

const KEYS = 12;
/** Few enough that each has several orders. */
const BUYERS = 4;
const GOODS = 4;
const STATUSES = ['pending', 'paid', 'cancelled', 'refunded', 'return'];

/**
 * A shop whose rows come to ClickHouse the way a sink may bring them: late, again, in any order, deletions with
 * nothing but the key. The same seed brings the same.
 */
export class RandomShop {
  readonly #warehouse: TestWarehouse;
  readonly #random: Random;
  /** Written at the source, and not delivered yet. */
  readonly #late: {table: Table; row: Row}[] = [];
  readonly #past: {table: Table; row: Row}[] = [];
  readonly #suffix = new Map<Table, number>();
  #version: number;

  /** @param version above all that were written before */
  constructor(warehouse: TestWarehouse, seed: number, version: number) {
    this.#warehouse = warehouse;
    this.#random = createRandom(seed, 'rollups');
    this.#version = version;
  }

  get random(): Random {
    return this.#random;
  }
  get version(): number {
    return this.#version;
  }

  /** One change, or several; with `wholeTables` also that one is emptied, or read again, which fills all anew. */
  async change({wholeTables = true} = {}): Promise<void> {
    const {between, chance, pick, weighted} = this.#random;
    const table = (['orders', 'order_items', 'customers', 'products'] as const)[weighted([5, 8, 1, 1])]!;
    const kind = weighted(wholeTables ? [12, 4, 1, 1] : [12, 2]);
    if (kind === 2) return this.#truncate(table);
    if (kind === 3) return this.#resync(pick(['orders', 'order_items', 'customers']));
    const rows = Array.from({length: between(1, 4)}, () => {
      const id = between(1, KEYS);
      this.#version += 1;
      if (kind === 1) return {id, _version: this.#version, _is_deleted: 1};
      return {...this.#row(table, id), _version: this.#version, _is_deleted: 0};
    });
    for (const row of rows) {
      if (chance(0.25)) this.#late.push({table, row});
      else await this.#deliver(table, row);
    }
    if (chance(0.3) && this.#late.length > 0) await this.#deliverLate(between(0, this.#late.length - 1));
    if (chance(0.2) && this.#past.length > 0) {
      const again = pick(this.#past);
      await this.#deliver(again.table, again.row);
    }
  }

  /** All that was written is delivered. */
  async deliverAll(): Promise<void> {
    while (this.#late.length > 0) await this.#deliverLate(0);
  }

  #moment(): string {
    const {between, pick} = this.#random;
    // Those far off are further than ClickHouse's narrow types for times go.
    const day = pick(['2025-01-31', '2025-02-01', '2025-02-02', '2025-03-01', '1950-02-28', '2150-03-01']);
    const pad = (value: number): string => String(value).padStart(2, '0');
    return `${day} ${pad(pick([0, 12, 23]))}:${pad(pick([0, 4, 5, 59]))}:${pad(between(0, 59))}.${pick(['000000', '999999'])}`;
  }

  #row(table: Table, id: number): Row {
    const {between, chance, pick} = this.#random;
    const at = this.#moment();
    const times = {created_at: at, updated_at: at};
    switch (table) {
      case 'customers':
        return {id, name: `c${between(1, 99)}`, country: pick(['DE', 'FR']), ...times};
      case 'products':
        return {id, sku: `s${id}`, price: '1.000', attributes: '{}', ...times};
      case 'orders':
        return {
          id,
          order_no: `N${id}`,
          customer_id: chance(0.2) ? null : between(1, BUYERS),
          status: pick(STATUSES),
          country: 'DE',
          currency: pick(['GBP', 'GBP', 'EUR', null]),
          ...times,
        };
      case 'order_items':
        return {
          id,
          order_id: between(1, KEYS),
          line_no: 1,
          product_id: between(1, GOODS),
          quantity: between(-3, 9),
          unit_price: `${between(0, 20)}.${pick(['000', '005', '999'])}`,
          ordered_at: at,
        };
    }
  }

  #target(table: Table): string {
    const suffix = this.#suffix.get(table);
    return `public__${table}${suffix === undefined ? '' : `__${suffix}`}`;
  }

  async #insert(table: Table, rows: readonly Row[]): Promise<void> {
    await this.#warehouse.client.insert({
      table: `${this.#warehouse.databases.cdc}.${this.#target(table)}`,
      values: rows,
      format: 'JSONEachRow',
    });
  }

  async #deliver(table: Table, row: Row): Promise<void> {
    await this.#insert(table, [row]);
    this.#past.push({table, row});
  }

  async #deliverLate(index: number): Promise<void> {
    const [late] = this.#late.splice(index, 1);
    await this.#deliver(late!.table, late!.row);
  }

  async #truncate(table: Table): Promise<void> {
    this.#version += 1;
    await this.#warehouse.run(
      `INSERT INTO {cdc}.${this.#target(table)} (id, _version, _is_deleted) SELECT id, ${this.#version}, 1 FROM {cdc}.${this.#target(table)} FINAL WHERE _is_deleted = 0`,
    );
  }

  /** The table is read again, into a target of its own, which its view shows then. What was late is in what was read. */
  async #resync(table: Table): Promise<void> {
    const before = this.#target(table);
    this.#version += 1;
    this.#suffix.set(table, this.#version);
    const now = this.#target(table);
    const own = ({table: other}: {table: Table}): boolean => other === table;
    for (const list of [this.#late, this.#past])
      list.splice(0, list.length, ...list.filter(entry => !own(entry)));
    await this.#warehouse.run(
      `CREATE TABLE {cdc}.${now} AS {cdc}.${before};
       INSERT INTO {cdc}.${now} SELECT * FROM {cdc}.${before} FINAL WHERE id % 5 <> 0;
       CREATE OR REPLACE VIEW {analytics}.${table} SQL SECURITY DEFINER AS
         SELECT * EXCEPT (_version, _is_deleted, _commit_ts, _ingested_at) FROM {cdc}.${now} FINAL WHERE _is_deleted = 0;`,
    );
  }
}
