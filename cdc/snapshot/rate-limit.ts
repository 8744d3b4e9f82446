import {setTimeout as sleep} from 'node:timers/promises';

/** Shorter waits are saved up: a timer is not exact to the millisecond. */
const SHORTEST_MS = 20;

/** Lets so many bytes a second through, of all callers together, in the long run. */
export class RateLimit {
  readonly #msPerByte: number;
  readonly #clock: {now(): number; wait(ms: number, signal: AbortSignal): Promise<unknown>};
  /** ms since 1970 at which all is paid for that was let through. */
  #paidAt = 0;

  constructor(
    bytesPerSecond: number,
    clock = {
      now: () => performance.now(),
      wait: (ms: number, signal: AbortSignal): Promise<unknown> =>
        sleep(ms, undefined, {signal}).catch(() => {}),
    },
  ) {
    this.#msPerByte = 1000 / bytesPerSecond;
    this.#clock = clock;
  }

  /** Resolves when the bytes may go on, or the signal aborts. */
  async pass(bytes: number, signal: AbortSignal): Promise<void> {
    const now = this.#clock.now();
    this.#paidAt = Math.max(this.#paidAt, now) + bytes * this.#msPerByte;
    if (this.#paidAt - now >= SHORTEST_MS) await this.#clock.wait(this.#paidAt - now, signal);
  }
}
