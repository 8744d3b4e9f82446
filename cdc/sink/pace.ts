import {CONNECTIONS} from './clickhouse.ts';

/** Inserts at one time; the client's other connections are for what tables look up. */
export const MOST_INSERTS = CONNECTIONS - 4;
/** Inserts take one part of this many of the time, as long as no row waits for longer than the settings say. */
const SHARE = 10;
/** With so many tables that this cannot be, they take half of it: rows that come faster than that wait anyway. */
const MOST_SHARE = 2;
/** Rows that are late already may wait so much of that longer, for an insert with more rows. */
const MORE_LATE = 0.25;
/** The newest insert counts as this part of what an insert of its table takes. */
const WEIGHT = 0.3;
const RECKON_MS = 20;
/** Tables with an insert since then take turns. */
const BUSY_MS = 10_000;

interface Inserts {
  /** When the last one began, ms. */
  begun: number;
  /** What one takes, ms. */
  took: number;
}

/**
 * How long rows of a busy table wait for each other before they are inserted: longer, the more time the inserts of all
 * tables take. So rows are soon visible while there is little to do, and blocks are large when there is much. Tables
 * take turns in inserting; who waits for its turn has more rows by then.
 */
export class Pace {
  readonly #longestMs: number;
  readonly #now: () => number;
  readonly #tables = new Map<string, Inserts>();
  readonly #waiting: (() => void)[] = [];
  #free = MOST_INSERTS;
  /** Between two inserts of a table, ms. */
  #interval = 0;
  /** As long as inserts are to take one of `SHARE` parts of the time, however many tables there are, ms. */
  #unhurried = 0;
  #reckonedAt = Number.NEGATIVE_INFINITY;

  /**
   * @param longestMs no row waits longer, unless inserts would take most of the time.
   * @param now milliseconds of a clock that goes forwards alone.
   */
  constructor(longestMs: number, now = (): number => performance.now()) {
    this.#longestMs = longestMs;
    this.#now = now;
  }

  /**
   * Milliseconds from now; zero or less where the table's rows may go.
   * @param lateMs so long ago the first of them was committed, where more are coming.
   */
  wait(table: string, lateMs = 0): number {
    const own = this.#tables.get(table);
    if (!own) return 0;
    this.#reckon();
    const late = Math.min(lateMs * MORE_LATE, this.#unhurried);
    return own.begun + Math.max(this.#interval, late) - this.#now();
  }

  /** Resolves when the table's turn has come. */
  async turn(table: string): Promise<Turn> {
    const turn = new Turn({
      free: () => this.#freed(),
      now: this.#now,
      over: begun => this.#over(table, begun),
    });
    await turn.take();
    return turn;
  }

  async #freed(): Promise<void> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>(resolve => this.#waiting.push(resolve));
  }

  #over(table: string, begun: number): void {
    const took = this.#now() - begun;
    const known = this.#tables.get(table);
    if (known) Object.assign(known, {begun, took: known.took + WEIGHT * (took - known.took)});
    else this.#tables.set(table, {begun, took});
    const next = this.#waiting.shift();
    if (next) next();
    else this.#free += 1;
  }

  /** Once for many tables. */
  #reckon(): void {
    const now = this.#now();
    if (now < this.#reckonedAt + RECKON_MS) return;
    this.#reckonedAt = now;
    let lately = 0;
    let busy = 0;
    for (const {begun, took} of this.#tables.values()) {
      if (begun >= now - this.#longestMs) lately += took;
      if (begun >= now - BUSY_MS) busy += took;
    }
    const turns = busy / MOST_INSERTS;
    this.#unhurried = Math.max(lately, turns) * SHARE;
    this.#interval = Math.max(Math.min(this.#longestMs, lately * SHARE), turns * MOST_SHARE);
  }
}

/** A table's turn to insert. Who waits before another attempt leaves it to others. */
export class Turn {
  readonly #pace: {free(): Promise<void>; now(): number; over(begun: number): void};
  #begun: number | undefined;

  constructor(pace: {free(): Promise<void>; now(): number; over(begun: number): void}) {
    this.#pace = pace;
  }

  /** Resolves when it is its turn; at once where it is. */
  async take(): Promise<void> {
    if (this.#begun !== undefined) return;
    await this.#pace.free();
    this.#begun = this.#pace.now();
  }

  leave(): void {
    if (this.#begun === undefined) return;
    const begun = this.#begun;
    this.#begun = undefined;
    this.#pace.over(begun);
  }
}
