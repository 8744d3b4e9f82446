import {setTimeout as sleep} from 'node:timers/promises';
import type {ClientBase} from 'pg';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from '../sink/clickhouse.ts';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import type {CapturedTable} from '../source/tables.ts';
import {type ChecksumSql, checksumSql, type Level} from './checksum.ts';
import {markPosition, tablesBehind} from './position.ts';
import {
  readPast,
  readSource,
  readSourceColumns,
  readTarget,
  readTargetColumns,
  sampleSource,
} from './readings.ts';
import {Settling, sum, type Unit} from './settling.ts';
import {type Difference, describe, type TableVerdict} from './verdict.ts';

export interface TableOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  /** A connection with the value settings, with no transaction open. */
  readonly postgres: ClientBase;
  readonly table: CapturedTable;
  /** Of the versions that are written now. */
  readonly epoch: number;
  readonly storedRows: number;
  readonly timeoutMs: number;
  readonly onProgress: (progress: {level: Level; round: number; pending: number}) => void;
}

const MIN_BUCKETS = 64;
/** What a first reading holds in memory. */
const MAX_BUCKETS = 65_536;
const ROWS_A_BUCKET = 2_048;
/** Keys that are compared one by one at a time. */
const MAX_KEYS = 100_000;
/** More in an IN would make a statement longer than ClickHouse takes (max_query_size). */
const MAX_NAMED_BUCKETS = 2_000;
const MAX_DIFFERENCES = 20;
/** Keys that change all the time, read by their index while ClickHouse is waited for. */
const MAX_SAMPLED = 20;
const LAST_ORDINAL = (1n << 48n) - 1n;
const BUCKET_ROUNDS = 3;
const POLL_MS = 100;

/**
 * Compares one table: first buckets of keys, then the keys of those buckets that did not agree. Only keys are found
 * to differ: a busy bucket may never stand still, while most of its keys do.
 */
export async function verifyTable(options: TableOptions): Promise<TableVerdict> {
  return new TableVerification(options).run();
}

class TableVerification {
  readonly #options: TableOptions;
  readonly #sql: ChecksumSql;
  readonly #startedAt = Date.now();
  #deadline = Number.POSITIVE_INFINITY;
  #rounds = 0;
  #reason = '';

  constructor(options: TableOptions) {
    this.#options = options;
    const rows = Math.max(options.table.estimatedRows, options.storedRows);
    const buckets = Math.min(MAX_BUCKETS, Math.max(MIN_BUCKETS, Math.ceil(rows / ROWS_A_BUCKET)));
    this.#sql = checksumSql(options.settings, options.table, buckets);
  }

  async run(): Promise<TableVerdict> {
    const whole = new Settling();
    await this.#settle(whole, 'bucket', undefined, round => {
      return round >= BUCKET_ROUNDS || rowsOf(whole.with('pending')) <= MAX_KEYS;
    });
    const left = [...whole.with('different'), ...whole.with('pending')].sort(
      ([a], [b]) => Number(a) - Number(b),
    );
    const groups = inGroups(left);
    const examined = new Set<string>();
    const totals: Unit[] = [];
    const different: [string, Unit][] = [];
    let unsettled = false;
    for (const group of groups) {
      if (different.length >= MAX_DIFFERENCES || Date.now() > this.#deadline) {
        unsettled = true;
        break;
      }
      const keys = new Settling();
      await this.#settle(keys, 'key', group, () => false);
      for (const bucket of group) examined.add(bucket);
      different.push(...keys.with('different'));
      unsettled ||= keys.with('pending').length > 0;
      totals.push(keys.total());
    }
    totals.push(whole.total(examined));
    const differences = await this.#describe(different);
    const verdict = different.length > 0 ? 'different' : unsettled ? 'unsettled' : 'equal';
    const postgres = sum(totals.map(total => total.postgres));
    const clickhouse = sum(totals.map(total => total.clickhouse));
    return {
      table: this.#options.table.schema.name,
      verdict,
      rows: {postgres: postgres.count, clickhouse: clickhouse.count},
      checksum: {postgres: postgres.sum.toString(16), clickhouse: clickhouse.sum.toString(16)},
      rounds: this.#rounds,
      seconds: (Date.now() - this.#startedAt) / 1000,
      differences,
      reason:
        verdict === 'unsettled' ? this.#reason || 'rows changed faster than they could be compared' : '',
    };
  }

  /** Reads both sides in turn until all has settled, `enough` says so after a round, or time is up. */
  async #settle(
    settling: Settling,
    level: Level,
    buckets: readonly string[] | undefined,
    enough: (round: number) => boolean,
  ): Promise<void> {
    const {client, postgres, settings, onProgress} = this.#options;
    for (let round = 1; ; round++) {
      this.#rounds += 1;
      const only = buckets ?? (round > 1 ? named(settling.with('pending')) : undefined);
      const {read, floor} = await readSource(postgres, this.#sql.source(level, only));
      settling.postgres(read);
      // Where nothing changes, and where ClickHouse is quick, this is all it takes.
      if (round === 1) settling.clickhouse(await readTarget(client, this.#sql.target(level, only)), false);
      const pending = settling.with('pending').length;
      onProgress({level, round, pending});
      this.#deadline = Math.min(this.#deadline, Date.now() + this.#options.timeoutMs);
      if (pending === 0 || enough(round)) return;
      const reading = new AbortController();
      const hot = buckets && round > 1 && pending <= MAX_SAMPLED ? settling.with('pending') : [];
      const sampled = sampleSource(
        postgres,
        this.#sql,
        hot.map(([key]) => key),
        reading.signal,
      );
      sampled.catch(() => {}); // thrown where it is awaited
      const reached = await this.#reached(await markPosition(settings)).finally(() => reading.abort());
      const seen = await sampled;
      if (!reached) return;
      settling.clickhouse(await readTarget(client, this.#sql.target(level, only)), true);
      if (buckets) {
        const since = rowVersion(this.#options.epoch, floor, LAST_ORDINAL);
        settling.past(await readPast(client, this.#sql.versions(buckets, since)), seen);
      }
      if (settling.with('pending').length === 0) return;
    }
  }

  /** Waits until ClickHouse shows the table up to the position; false where time is up first. */
  async #reached(position: Lsn): Promise<boolean> {
    const {client, settings, table} = this.#options;
    for (;;) {
      const behind = await tablesBehind(client, settings, position);
      const own = behind.find(({name}) => name === table.schema.name);
      if (!own) {
        this.#reason = '';
        return Date.now() <= this.#deadline;
      }
      this.#reason =
        own.state === 'parked' ? `it is parked: ${own.reason}` : `ClickHouse is behind (${own.state})`;
      if (own.state === 'parked' || Date.now() > this.#deadline) return false;
      await sleep(POLL_MS);
    }
  }

  async #describe(found: readonly [string, Unit][]): Promise<Difference[]> {
    if (found.length === 0) return [];
    const {client, postgres, table} = this.#options;
    const first = [...found].sort(([a], [b]) => (a < b ? -1 : 1)).slice(0, MAX_DIFFERENCES);
    const keys = first.map(([key]) => key);
    const columns = {
      source: await readSourceColumns(postgres, this.#sql.sourceColumns(), keys),
      target: await readTargetColumns(client, this.#sql.targetColumns(keys)),
    };
    return first
      .map(([key, unit]) => describe(table.schema, key, unit, columns))
      .sort((a, b) => (a.key < b.key ? -1 : 1));
  }
}

const rowsIn = ({postgres, clickhouse}: Unit): number =>
  Math.max(Number(postgres.count), Number(clickhouse.count));
const rowsOf = (units: readonly [string, Unit][]): number =>
  units.reduce((total, [, unit]) => total + rowsIn(unit), 0);
const named = (units: readonly [string, Unit][]): string[] | undefined =>
  units.length > MAX_NAMED_BUCKETS ? undefined : units.map(([id]) => id);

/** Buckets that are small enough together to be compared key by key; at least one in each group. */
function inGroups(units: readonly [string, Unit][]): string[][] {
  const groups: string[][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const [id, unit] of units) {
    rows += rowsIn(unit);
    if (rows > MAX_KEYS || groups.at(-1)!.length >= MAX_NAMED_BUCKETS) {
      groups.push([]);
      rows = rowsIn(unit);
    }
    groups.at(-1)!.push(id);
  }
  return groups;
}
