/** Inserts take one part of this many of the time, as long as no row waits for longer than the settings say. */
const SHARE = 10;
/** The newest insert counts as this part of what an insert of its table takes. */
const WEIGHT = 0.3;
const RECKON_MS = 20;

interface Inserts {
  /** When the last one began, ms. */
  begun: number;
  /** What one takes, ms. */
  took: number;
}

/**
 * How long rows of a busy table wait for each other before they are inserted: longer, the more time the inserts of all
 * tables take. So rows are soon visible while there is little to do, and blocks are large when there is much.
 */
export class Pace {
  readonly #longestMs: number;
  readonly #now: () => number;
  readonly #tables = new Map<string, Inserts>();
  #reckoned = 0;
  #reckonedAt = Number.NEGATIVE_INFINITY;

  /** @param longestMs no row waits longer. @param now milliseconds of a clock that goes forwards alone. */
  constructor(longestMs: number, now = (): number => performance.now()) {
    this.#longestMs = longestMs;
    this.#now = now;
  }

  /** Milliseconds from now; zero or less where the table's rows may go. */
  wait(table: string): number {
    const own = this.#tables.get(table);
    return own ? own.begun + this.#interval() - this.#now() : 0;
  }

  /** An insert has ended just now, which began `took` milliseconds ago. */
  inserted(table: string, took: number): void {
    const begun = this.#now() - took;
    const known = this.#tables.get(table);
    if (known) Object.assign(known, {begun, took: known.took + WEIGHT * (took - known.took)});
    else this.#tables.set(table, {begun, took});
  }

  /** Between two inserts of a table. It is reckoned once for many tables. */
  #interval(): number {
    const now = this.#now();
    if (now < this.#reckonedAt + RECKON_MS) return this.#reckoned;
    let sum = 0;
    for (const {begun, took} of this.#tables.values()) if (begun >= now - this.#longestMs) sum += took;
    this.#reckonedAt = now;
    this.#reckoned = Math.min(this.#longestMs, sum * SHARE);
    return this.#reckoned;
  }
}
