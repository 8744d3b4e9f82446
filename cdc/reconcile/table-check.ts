import type {ClientBase} from 'pg';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from '../sink/clickhouse.ts';
import {rowVersion} from '../source/lsn.ts';
import {currentPosition} from '../source/postgres.ts';
import type {CapturedTable} from '../source/tables.ts';
import type {ChecksumSql, Level, Scope} from './checksum.ts';
import {waitForTable} from './position.ts';
import {type Reading, readPast, readSource, readTarget, sampleSource} from './readings.ts';
import {scanSource, scanTarget} from './scan.ts';
import {Settling, sum, type Unit} from './settling.ts';
import type {Pass} from './verdict.ts';

/** What is going on: a first reading of all rows, or what differs being looked at again. */
export type TableProgress =
  | {
      readonly stage: 'reading';
      readonly server: 'PostgreSQL' | 'ClickHouse';
      readonly rows: number;
      readonly bytes: number;
      readonly estimatedRows: number;
      readonly done: boolean;
    }
  | {
      readonly stage: 'settling';
      readonly level: Level;
      readonly round: number;
      /** Of those that are being compared, how many do not agree yet. */
      readonly pending: number;
      /** Pieces whose turn comes later. */
      readonly waiting: number;
    };

export interface TableOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  /** A connection with the value settings, with no transaction open. */
  readonly postgres: ClientBase;
  readonly table: CapturedTable;
  readonly sql: ChecksumSql;
  /** Of the versions that are written now. */
  readonly epoch: number;
  readonly estimatedRows: number;
  /** How long rows may take to settle after they were first read, in ms. */
  readonly timeoutMs: number;
  /** So many keys that differ are enough. */
  readonly maxDifferent: number;
  readonly onProgress: (progress: TableProgress) => void;
}

/** Rows whose keys are compared one by one at a time: what a reading holds in memory. */
const GROUP_ROWS = 100_000;
/** So few are compared by key at once. */
const FEW_ROWS = 20_000;
/** Keys that are looked up by index. */
const MAX_NAMED_KEYS = 10_000;
/** Keys that change all the time, read by their index while ClickHouse is waited for. */
const MAX_SAMPLED = 20;
/** More pieces in a condition make a statement that takes longer to plan than to run. */
const MAX_NAMED_PIECES = 2_000;
const LAST_ORDINAL = (1n << 48n) - 1n;
const PIECE_ROUNDS = 2;

/**
 * Compares one table: first pieces of it, all in one reading of each server; then again the pieces that did not
 * agree, and at last their keys. Only keys are found to differ: a busy piece may never stand still, while most of
 * its keys do.
 */
export class TableCheck {
  readonly #options: TableOptions;
  readonly #totals: Unit[] = [];
  readonly #different = new Map<string, Unit>();
  #rounds = 0;
  #waiting = 0;
  #unsettled = false;
  #gaveUp = false;
  #reason = '';
  #passes: {postgres: Pass; clickhouse: Pass} | undefined;

  constructor(options: TableOptions) {
    this.#options = options;
  }

  /** Framed keys that differ, with what each side has. */
  get different(): ReadonlyMap<string, Unit> {
    return this.#different;
  }
  get rounds(): number {
    return this.#rounds;
  }
  get passes(): {postgres: Pass; clickhouse: Pass} | undefined {
    return this.#passes;
  }
  /** Why not all has settled; undefined where it has. */
  get unsettled(): string | undefined {
    if (!this.#unsettled) return undefined;
    return this.#reason || 'rows changed faster than they could be compared';
  }
  get total(): Unit {
    const all = [...this.#totals, ...this.#different.values()];
    return {
      postgres: sum(all.map(unit => unit.postgres)),
      clickhouse: sum(all.map(unit => unit.clickhouse)),
    };
  }

  async run(): Promise<void> {
    const {sql, maxDifferent} = this.#options;
    const whole = await this.#readAll();
    const order = new Map(sql.pieces.names?.map((name, i) => [name, i]));
    const place = (piece: string): number => order.get(piece) ?? Number(piece);
    const left = whole.with('pending').sort(([a], [b]) => place(a) - place(b));
    const examined = new Set<string>();
    this.#waiting = left.length;
    for (const group of inGroups(left)) {
      if (this.#different.size >= maxDifferent || this.#gaveUp) {
        this.#unsettled = true;
        break;
      }
      this.#waiting -= group.length;
      await this.#settleGroup(group);
      for (const [piece] of group) examined.add(piece);
    }
    this.#totals.push(whole.total(examined));
  }

  /** Looks again at the keys that differed. */
  async again(): Promise<void> {
    const keys = [...this.#different.keys()];
    this.#different.clear();
    for (let at = 0; at < keys.length; at += MAX_NAMED_KEYS)
      await this.#settleKeys({keys: keys.slice(at, at + MAX_NAMED_KEYS)});
  }

  async #readAll(): Promise<Settling> {
    const {client, settings, postgres, table, sql, estimatedRows, onProgress} = this.#options;
    const settling = new Settling();
    this.#rounds += 1;
    const told = (server: 'PostgreSQL' | 'ClickHouse') => (read: Reading, done: boolean) =>
      onProgress({
        stage: 'reading',
        server,
        rows: Number(read.rows),
        bytes: Number(read.bytes),
        estimatedRows,
        done,
      });
    const startedAt = Date.now();
    const source = await scanSource({settings, postgres, table, sql, onProgress: told('PostgreSQL')});
    settling.postgres(source.units);
    const between = Date.now();
    const target = await scanTarget({client, sql, onProgress: told('ClickHouse')});
    // Where nothing changes, and where ClickHouse is quick, this is all it takes.
    settling.clickhouse(target.units, false);
    this.#passes = {
      postgres: passOf(source, between - startedAt),
      clickhouse: passOf(target, Date.now() - between),
    };
    return settling;
  }

  async #settleGroup(group: readonly [string, Unit][]): Promise<void> {
    const {sql} = this.#options;
    let pieces = group.map(([piece]) => piece);
    // A bucket's rows lie everywhere: reading some takes as long as reading all, so their keys are read at once.
    if (sql.pieces.kind === 'key ranges' && rowsOf(group) > FEW_ROWS) {
      const part = new Settling();
      await this.#settle(part, 'piece', {pieces}, PIECE_ROUNDS);
      pieces = [...part.with('different'), ...part.with('pending')].map(([piece]) => piece);
      this.#totals.push(part.total(this.#gaveUp ? undefined : new Set(pieces)));
    }
    if (this.#gaveUp) this.#unsettled = true;
    else if (pieces.length > 0) await this.#settleKeys({pieces});
  }

  async #settleKeys(scope: Scope): Promise<void> {
    const keys = new Settling();
    await this.#settle(keys, 'key', scope, Number.POSITIVE_INFINITY);
    const different = keys.with('different');
    for (const [key, unit] of different) this.#different.set(key, unit);
    this.#unsettled ||= keys.with('pending').length > 0;
    this.#totals.push(keys.total(new Set(different.map(([key]) => key))));
  }

  /** Reads both sides in turn until all has settled, so many rounds are over, or time is up. */
  async #settle(settling: Settling, level: Level, scope: Scope, rounds: number): Promise<void> {
    const {client, postgres, settings, table, sql, onProgress, timeoutMs} = this.#options;
    let deadline = Number.POSITIVE_INFINITY;
    for (let round = 1; ; round++) {
      this.#rounds += 1;
      const only = round === 1 ? scope : narrowed(settling, level, scope);
      const floor = await currentPosition(postgres);
      settling.postgres((await readSource(postgres, sql.source(level, only))).units);
      if (round === 1) settling.clickhouse((await readTarget(client, sql.target(level, only))).units, false);
      const pending = settling.with('pending');
      onProgress({stage: 'settling', level, round, pending: pending.length, waiting: this.#waiting});
      deadline = Math.min(deadline, Date.now() + timeoutMs);
      if (pending.length === 0 || round >= rounds) return;
      const reading = new AbortController();
      const hot = level === 'key' && round > 1 && pending.length <= MAX_SAMPLED ? pending : [];
      const sampled = sampleSource(
        postgres,
        sql,
        hot.map(([key]) => key),
        reading.signal,
      );
      sampled.catch(() => {}); // thrown where it is awaited
      const behind = await waitForTable({client, settings, name: table.schema.name, deadline}).finally(() =>
        reading.abort(),
      );
      const seen = await sampled;
      this.#reason = behind;
      if (behind !== '') {
        this.#gaveUp = true;
        return;
      }
      settling.clickhouse((await readTarget(client, sql.target(level, only))).units, true);
      if (level === 'key') {
        const since = rowVersion(this.#options.epoch, floor, LAST_ORDINAL);
        settling.past(await readPast(client, sql.versions(only, since)), seen);
      }
      if (settling.with('pending').length === 0) return;
      if (Date.now() > deadline) {
        this.#gaveUp = true;
        return;
      }
    }
  }
}

/** What is still to be compared of a scope. */
function narrowed(settling: Settling, level: Level, scope: Scope): Scope {
  const pending = settling.with('pending').map(([unit]) => unit);
  if (level === 'piece') return {pieces: pending};
  return pending.length > MAX_NAMED_KEYS ? scope : {...scope, keys: pending};
}

const passOf = ({rows, bytes}: Reading, ms: number): Pass => ({rows, bytes, seconds: ms / 1000});
const rowsIn = ({postgres, clickhouse}: Unit): number =>
  Math.max(Number(postgres.count), Number(clickhouse.count));
const rowsOf = (units: readonly [string, Unit][]): number =>
  units.reduce((total, [, unit]) => total + rowsIn(unit), 0);

/** Pieces that are small enough together to be compared key by key; at least one in each group. */
function inGroups(units: readonly [string, Unit][]): [string, Unit][][] {
  const groups: [string, Unit][][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const unit of units) {
    rows += rowsIn(unit[1]);
    if (rows > GROUP_ROWS || groups.at(-1)!.length >= MAX_NAMED_PIECES) {
      groups.push([]);
      rows = rowsIn(unit[1]);
    }
    groups.at(-1)!.push(unit);
  }
  return groups;
}
