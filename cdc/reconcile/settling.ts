/** What one side holds in a unit (a bucket of keys, or one key): how many rows, and the sum of their hashes. */
export interface Fingerprint {
  readonly count: bigint;
  readonly sum: bigint;
}
export type Fingerprints = ReadonlyMap<string, Fingerprint>;

/** unit → what it was found with, one after the other */
export type Values = ReadonlyMap<string, readonly Fingerprint[]>;

export const NOTHING: Fingerprint = {count: 0n, sum: 0n};
const same = (a: Fingerprint, b: Fingerprint): boolean => a.count === b.count && a.sum === b.sum;

export interface Unit {
  readonly postgres: Fingerprint;
  readonly clickhouse: Fingerprint;
}

interface State {
  postgres: Fingerprint;
  clickhouse: Fingerprint;
  /** Was ClickHouse read after it had reached the position of PostgreSQL's last reading? */
  compared: boolean;
  /** Did this side change since the round before? */
  postgresMoved: boolean;
  clickhouseMoved: boolean;
  /** Rounds in a row in which PostgreSQL stood still and ClickHouse, caught up, had one and the same other value. */
  steady: number;
  outcome: 'pending' | 'equal' | 'different';
}

/**
 * Two rounds, since one can be chance: a row that comes and goes leaves PostgreSQL's side as it was, and ClickHouse
 * may have been read in between.
 */
const STEADY_ROUNDS = 2;

/**
 * Decides from alternating readings of both sides, PostgreSQL first, what is equal while changes stream. A unit is
 * equal when one reading agrees with the other side's last; different when PostgreSQL did not change between two
 * readings while ClickHouse, read in between and caught up to the first of them, had something else; pending
 * otherwise. The first readings of both sides name the units; what appears later is newer than what is compared.
 */
export class Settling {
  readonly #units = new Map<string, State>();
  #open = true;

  postgres(read: Fingerprints): void {
    if (this.#open) for (const id of read.keys()) this.#add(id);
    for (const [id, unit] of this.#pending()) {
      const value = read.get(id) ?? NOTHING;
      const still = unit.compared && same(value, unit.postgres);
      unit.steady = still ? unit.steady + 1 : 0;
      unit.postgresMoved = !this.#open && !same(value, unit.postgres);
      unit.postgres = value;
      unit.compared = false;
      // Before ClickHouse has been read there is nothing to agree with.
      if (!this.#open && same(value, unit.clickhouse)) unit.outcome = 'equal';
      else if (unit.steady >= STEADY_ROUNDS) unit.outcome = 'different';
    }
  }

  /** @param caughtUp ClickHouse had reached what PostgreSQL's last reading saw. */
  clickhouse(read: Fingerprints, caughtUp: boolean): void {
    if (this.#open) for (const id of read.keys()) this.#add(id);
    this.#open = false;
    for (const [id, unit] of this.#pending()) {
      const value = read.get(id) ?? NOTHING;
      unit.clickhouseMoved = !same(value, unit.clickhouse);
      if (unit.clickhouseMoved) unit.steady = 0;
      unit.clickhouse = value;
      unit.compared = caughtUp;
      if (same(value, unit.postgres)) unit.outcome = 'equal';
    }
  }

  /**
   * What ClickHouse held at positions since PostgreSQL's last reading, and what PostgreSQL was seen with since: a
   * unit that has one value in both was equal meanwhile, although it changes faster than it can be read twice. Only
   * for units that move on both sides: a wrong row that stands over a right one is what ClickHouse shows.
   */
  past(clickhouse: Values, postgres: Values): void {
    for (const [id, unit] of this.#pending()) {
      if (!unit.postgresMoved || !unit.clickhouseMoved) continue;
      const seen = [unit.postgres, ...(postgres.get(id) ?? [])];
      const common = clickhouse.get(id)?.find(value => seen.some(other => same(value, other)));
      if (!common) continue;
      unit.postgres = common;
      unit.clickhouse = common;
      unit.outcome = 'equal';
    }
  }

  /** The units with this outcome. */
  with(outcome: State['outcome']): [string, Unit][] {
    return [...this.#units].filter(([, unit]) => unit.outcome === outcome);
  }

  /** The sum over all units but those left out. */
  total(leftOut: ReadonlySet<string> = new Set()): Unit {
    const units = [...this.#units].flatMap(([id, unit]) => (leftOut.has(id) ? [] : [unit]));
    return {
      postgres: sum(units.map(unit => unit.postgres)),
      clickhouse: sum(units.map(unit => unit.clickhouse)),
    };
  }

  #add(id: string): void {
    if (this.#units.has(id)) return;
    this.#units.set(id, {
      postgres: NOTHING,
      clickhouse: NOTHING,
      compared: false,
      postgresMoved: false,
      clickhouseMoved: false,
      steady: 0,
      outcome: 'pending',
    });
  }

  *#pending(): Iterable<[string, State]> {
    for (const entry of this.#units) if (entry[1].outcome === 'pending') yield entry;
  }
}

export const sum = (values: readonly Fingerprint[]): Fingerprint =>
  values.reduce((a, b) => ({count: a.count + b.count, sum: a.sum + b.sum}), NOTHING);
