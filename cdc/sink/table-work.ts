import {Bell} from '../bell.ts';
import {SegmentQueue} from './segments.ts';

/** Messages take more room than their rows: so many segments behind one that was refused they are kept. */
const CAREFUL_SEGMENTS = 100;

/** Where a sink stands with one table. */
export class TableWork {
  readonly queue: SegmentQueue;
  /** Rings when there may be something to do. */
  readonly bell = new Bell();
  parked = false;
  /** partition → offset of the first message that is not visible */
  readonly next = new Map<number, bigint>();
  /** Rises when messages are going to be delivered again. */
  delivery = 0;
  /** Rows of this generation and older ones are not applied any more: the table is to be read into another target. */
  passedOver = 0;
  readonly #always: boolean;
  #careful = 0;

  /** @param keep its messages are kept from the start, or `always`: whoever delivers them keeps them anyway. */
  constructor(maxBytes: number, keep: boolean | 'always') {
    this.#always = keep === 'always';
    this.queue = new SegmentQueue(maxBytes, !this.#always);
    if (keep) this.#keep();
  }

  #keep(): void {
    this.#careful = CAREFUL_SEGMENTS;
    this.queue.keep = true;
  }

  /** Everything from `next` on comes again, and its messages are kept. Gives the bytes that were held. */
  startAgain(): number {
    this.delivery += 1;
    this.#keep();
    return this.clear();
  }

  clear(): number {
    let bytes = 0;
    for (let segment = this.queue.shift(); segment; segment = this.queue.shift()) bytes += segment.held;
    return bytes;
  }

  /** A segment was applied. */
  applied(): void {
    if (this.#careful > 0) this.#careful -= 1;
    this.queue.keep = this.#always || this.#careful > 0;
  }
}
