import type {Ends} from './kafka/message.ts';
import type {Publisher} from './kafka/transport.ts';
import {type Lsn, NO_LSN} from './source/lsn.ts';

/** They are at least so far apart while changes flow. */
const EVERY_MS = 100;

/** Gathers what the next watermark tells. */
export class Watermarks {
  /** Of the last one that was published. */
  position: Lsn = NO_LSN;
  readonly #publisher: Publisher;
  readonly #epoch: number;
  #at = Number.NEGATIVE_INFINITY;
  #newest: Record<string, string> = {};
  #ends: Record<string, Readonly<Record<number, string>>>;

  /** @param options.ends where the topics ended at the start: the first watermark waits for it. */
  constructor(options: {publisher: Publisher; epoch: number; ends: Ends}) {
    this.#publisher = options.publisher;
    this.#epoch = options.epoch;
    this.#ends = {...options.ends};
  }

  get due(): boolean {
    return performance.now() - this.#at > EVERY_MS;
  }

  /** @param newest commit (µs) of each table that changed. @param ends where these changes lie. */
  add(newest: Readonly<Record<string, string>>, ends: Ends): void {
    Object.assign(this.#newest, newest);
    for (const [table, partitions] of Object.entries(ends)) {
      this.#ends[table] = {...this.#ends[table], ...partitions};
    }
  }

  /**
   * To be called when all changes up to the position are durable. One that lies before the last one tells nothing: a
   * transaction may have come between the reading of the clock and its turn.
   */
  async publish(position: Lsn, micros: bigint): Promise<void> {
    if (position < this.position) return;
    const [newest, ends] = [this.#newest, this.#ends];
    this.#at = performance.now();
    this.#newest = {};
    this.#ends = {};
    await this.#publisher.watermark({
      epoch: this.#epoch,
      position: position.toString(),
      micros: micros.toString(),
      newest,
      ends,
    });
    this.position = position;
  }
}
