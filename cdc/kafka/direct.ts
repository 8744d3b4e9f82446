import {PipelineError} from '../failures.ts';
import type {TableSchema} from '../source/table-schema.ts';
import type {Ends, InMessage, OutMessage} from './message.ts';
import type {Publisher, Receiver, Subscriber, Watermark} from './transport.ts';

/** Messages that are handed over together: as objects they take more memory than as bytes. */
const AT_A_TIME = 512;

/**
 * The transport without Kafka: capture hands its messages to the sink of the same process, and they count as durable
 * when ClickHouse has them. The slot is the log; each table has one partition.
 */
export class DirectTransport implements Publisher, Subscriber {
  readonly rewind = undefined;
  onTooLarge: Publisher['onTooLarge'];
  readonly #offsets = new Map<string, bigint>();
  readonly #visible = new Map<string, bigint>();
  #waiting: {ends: ReadonlyMap<string, bigint>; done: () => void; stopped: () => void}[] = [];
  #receiver = Promise.withResolvers<Receiver>();
  #stopped = false;

  async run(receiver: Receiver, signal: AbortSignal): Promise<void> {
    this.#receiver.resolve(receiver);
    await new Promise<void>(resolve => {
      if (signal.aborted) resolve();
      signal.addEventListener('abort', () => resolve(), {once: true});
    });
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

  partitions(_table: string): number {
    return 1;
  }

  /** What was published is visible already. */
  async ends(): Promise<Ends> {
    return {};
  }

  async applied(): Promise<void> {}

  async publish(messages: Iterable<OutMessage>): Promise<Ends> {
    const receiver = await this.#receiver.promise;
    const byTable = new Map<string, InMessage[]>();
    const deliver = async (): Promise<void> => {
      const lists = [...byTable];
      byTable.clear();
      for (const [table, list] of lists) await receiver.accept({table, partition: 0, messages: list});
    };
    let waiting = 0;
    const ends = new Map<string, bigint>();
    for (const {table, key, value, headers} of messages) {
      const offset = this.#offsets.get(table.name) ?? 0n;
      this.#offsets.set(table.name, offset + 1n);
      ends.set(table.name, offset + 1n);
      const plain = Object.fromEntries(
        Object.entries(headers).map(([name, held]) => [
          name,
          typeof held === 'string' ? Buffer.from(held) : held,
        ]),
      );
      const list = byTable.get(table.name) ?? [];
      byTable.set(table.name, list);
      list.push({offset, key, value, headers: plain});
      if (++waiting % AT_A_TIME === 0) await deliver();
    }
    await deliver();
    await this.#reached(ends);
    return Object.fromEntries([...ends].map(([table, end]) => [table, {0: end.toString()}]));
  }

  #reached(ends: ReadonlyMap<string, bigint>): Promise<void> {
    const {promise, resolve, reject} = Promise.withResolvers<void>();
    const stopped = (): void => reject(new PipelineError('ch.unavailable', 'the sink stopped'));
    if (this.#stopped) stopped();
    else this.#waiting.push({ends, done: resolve, stopped});
    this.#settle();
    return promise;
  }

  #settle(): void {
    const reached = (ends: ReadonlyMap<string, bigint>): boolean =>
      [...ends].every(([table, end]) => (this.#visible.get(table) ?? 0n) >= end);
    const [done, rest] = [
      this.#waiting.filter(w => reached(w.ends)),
      this.#waiting.filter(w => !reached(w.ends)),
    ];
    this.#waiting = rest;
    for (const {done: resolve} of done) resolve();
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
    for (const {stopped} of this.#waiting.splice(0)) stopped();
  }
}
