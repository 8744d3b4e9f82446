import {aborted} from '../aborted.ts';
import {PipelineError} from '../failures.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {type Batch, BatchMessages} from './batch.ts';
import type {Ends} from './message.ts';
import type {Published, Publisher, Receiver, Subscriber, Watermark} from './transport.ts';

const stopped = (): PipelineError => new PipelineError('ch.unavailable', 'the sink stopped');

/**
 * The transport without Kafka: capture hands its messages to the sink of the same process, and they count as durable
 * when ClickHouse has them. The slot is the log; each table has one partition.
 */
export class DirectTransport implements Publisher, Subscriber {
  readonly rewind = undefined;
  onTooLarge: Publisher['onTooLarge'];
  readonly #offsets = new Map<string, bigint>();
  readonly #visible = new Map<string, bigint>();
  readonly #waiting: {
    ends: ReadonlyMap<string, bigint>;
    resolve: () => void;
    reject: (error: unknown) => void;
  }[] = [];
  #handing: Promise<unknown> = Promise.resolve();
  #receiver = Promise.withResolvers<Receiver>();
  #stopped = false;

  async run(receiver: Receiver, signal: AbortSignal): Promise<void> {
    this.#receiver.resolve(receiver);
    await aborted(signal);
  }

  readonly isLog = false;

  async cluster(): Promise<string> {
    return '';
  }

  async lastPosition(): Promise<undefined> {
    return undefined;
  }

  async lost(): Promise<Map<string, string>> {
    return new Map();
  }

  async rememberEnds(): Promise<void> {}

  async prepare(_tables: readonly TableSchema[]): Promise<void> {}

  /** What was published is visible already. */
  async ends(): Promise<Ends> {
    return {};
  }

  async applied(): Promise<void> {}

  /** Those of stream and snapshot after each other: offsets are delivered in their order. */
  async publish(batch: Batch): Promise<Published> {
    const handing = this.#handing.then(() => this.#handOver(batch));
    this.#handing = handing.catch(() => {});
    const ends = await handing;
    return {durable: this.#reached(ends)};
  }

  async #handOver(batch: Batch): Promise<ReadonlyMap<string, bigint>> {
    const receiver = await this.#receiver.promise;
    const byTable = new Map<string, BatchMessages>();
    for (const [i, {name}] of batch.tables.entries()) {
      let own = byTable.get(name);
      if (!own) {
        own = new BatchMessages(batch, this.#offsets.get(name) ?? 0n);
        byTable.set(name, own);
      }
      own.push(i);
    }
    const ends = new Map<string, bigint>();
    for (const [table, {first, count}] of byTable) ends.set(table, first + BigInt(count));
    for (const [table, end] of ends) this.#offsets.set(table, end);
    for (const [table, messages] of byTable)
      await receiver.accept({table, partition: 0, first: messages.first, messages});
    return ends;
  }

  async #reached(ends: ReadonlyMap<string, bigint>): Promise<Ends> {
    if (this.#stopped) throw stopped();
    const {promise, resolve, reject} = Promise.withResolvers<void>();
    this.#waiting.push({ends, resolve, reject});
    this.#settle();
    await promise;
    return Object.fromEntries([...ends].map(([table, end]) => [table, {0: end.toString()}]));
  }

  /** In the order of publishing, which is that in which capture goes on anyway. */
  #settle(): void {
    const isReached = ([table, end]: readonly [string, bigint]): boolean =>
      (this.#visible.get(table) ?? 0n) >= end;
    let count = 0;
    for (const {ends, resolve} of this.#waiting) {
      if (![...ends].every(isReached)) break;
      resolve();
      count += 1;
    }
    this.#waiting.splice(0, count);
  }

  async watermark(watermark: Watermark): Promise<void> {
    (await this.#receiver.promise).watermark(watermark);
  }

  visible(table: string, _partition: number, next: bigint): void {
    this.#visible.set(table, next);
    this.#settle();
  }

  async elsewhere(): Promise<[]> {
    return [];
  }

  /** Publisher and subscriber share it, so either side's end ends both: what is not visible was not durable. */
  async close(): Promise<void> {
    this.#stopped = true;
    this.#receiver.reject(stopped()); // where there was none yet
    this.#receiver.promise.catch(() => {});
    for (const {reject} of this.#waiting.splice(0)) reject(stopped());
  }
}
