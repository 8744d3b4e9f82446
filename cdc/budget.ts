/**
 * The bytes that a process may hold on their way from PostgreSQL to ClickHouse, in whichever stage they are. Who holds
 * no more than `floor` may always take: so each stage can finish what it has begun, however much the others hold, and
 * none waits for another that waits for it.
 */
export class Budget {
  readonly limit: number;
  readonly floor: number;
  /** Called when somebody has to wait for room: what can be freed should not wait for anything else. */
  onPressed: () => void = () => {};
  #used = 0;
  readonly #shares = new Set<Share>();

  /** @param batchBytes what a stage needs to work at its usual pace. */
  constructor(limit: number, batchBytes: number) {
    this.limit = limit;
    this.floor = Math.min(batchBytes, limit / 4);
  }

  /** @param metric is told what the share holds. */
  share(metric?: {set(bytes: number): void}): Share {
    const share = new Share(this, bytes => {
      this.#used += bytes;
      metric?.set(share.held);
      if (bytes < 0) for (const other of this.#shares) other.settle();
    });
    this.#shares.add(share);
    return share;
  }

  get full(): boolean {
    return this.#used > this.limit;
  }
  /** Does somebody wait for room? */
  get pressed(): boolean {
    for (const share of this.#shares) if (share.waits) return true;
    return false;
  }
  /** Is enough free again that it is worth going on? */
  get roomy(): boolean {
    return this.#used <= this.limit / 2;
  }
  /** What it holds is free, who waits is let go, and what it takes from now on is not counted: its stage is at its end. */
  close(share: Share): void {
    share.hold(0);
    share.settle(true);
    share.closed = true;
    this.#shares.delete(share);
  }
}

/** What one stage holds of the budget. */
export class Share {
  closed = false;
  readonly #budget: Budget;
  readonly #change: (bytes: number) => void;
  #held = 0;
  #waiting: (() => void)[] = [];

  constructor(budget: Budget, change: (bytes: number) => void) {
    this.#budget = budget;
    this.#change = change;
  }

  get held(): number {
    return this.#held;
  }
  get waits(): boolean {
    return this.#waiting.length > 0;
  }
  /** Must it wait before it takes more? What it has in hand it may still take. */
  get over(): boolean {
    return this.#budget.full && this.#held > this.#budget.floor;
  }

  /** All that the stage holds now. */
  hold(bytes: number): void {
    if (this.closed) return;
    const change = bytes - this.#held;
    this.#held = bytes;
    this.#change(change);
  }

  /** Resolves when there is room; at once where it is not over. Nobody waits for ever: what is held gets away, or all ends. */
  async room(): Promise<void> {
    if (!this.over || this.closed) return;
    const {promise, resolve} = Promise.withResolvers<void>();
    this.#waiting.push(resolve);
    this.#budget.onPressed();
    await promise;
  }

  /** Lets those go on that have room; all of them where it `ends`. */
  settle(ends = false): void {
    if (this.#waiting.length === 0) return;
    if (!ends && !this.#budget.roomy && this.#held > this.#budget.floor) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
