import {setTimeout as sleep} from 'node:timers/promises';
import {asPipelineError} from '../failures.ts';
import type {Delivery} from '../kafka/message.ts';
import type {Receiver, Watermark} from '../kafka/transport.ts';
import {metrics} from '../observe/metrics.ts';
import {retrying} from '../retry.ts';
import {Completeness} from './completeness.ts';
import {FreshnessLog} from './freshness-log.ts';
import type {SinkOptions} from './sink-options.ts';
import {applySegment, type Segment, SegmentQueue} from './table-writer.ts';

interface TableWork {
  readonly queue: SegmentQueue;
  /** Resolves when there may be something to do. */
  wake: () => void;
  parked: boolean;
}

/**
 * Reads the subscriber's messages and makes them visible in ClickHouse, until the signal aborts; then what was
 * accepted is still applied. Each table has a loop of its own, one insert at a time, so its messages stay in order
 * and a broken table does not hold up the others. Rejects on a failure that halts.
 */
export async function runSink(options: SinkOptions, signal: AbortSignal): Promise<void> {
  const sink = new Sink(options, signal);
  await sink.run();
}

class Sink implements Receiver {
  readonly #options: SinkOptions;
  readonly #stop: AbortSignal;
  readonly #failed = new AbortController();
  readonly #tables = new Map<string, TableWork>();
  readonly #loops: Promise<void>[] = [];
  readonly #freshness: FreshnessLog;
  readonly #completeness: Completeness;
  #waiting: (() => void)[] = [];
  #bytes = 0;
  #draining = false;

  constructor(options: SinkOptions, stop: AbortSignal) {
    this.#options = options;
    this.#stop = stop;
    this.#freshness = new FreshnessLog(options);
    this.#completeness = new Completeness(options);
  }

  async run(): Promise<void> {
    const {subscriber} = this.#options;
    const signal = AbortSignal.any([this.#stop, this.#failed.signal]);
    const reports = new AbortController();
    const reporting = Promise.all([
      this.#freshness.run(reports.signal),
      this.#completeness.run(reports.signal),
    ]).catch(error => this.#fail(error));
    try {
      await subscriber.run(this, signal);
    } catch (error) {
      this.#fail(error);
    }
    this.#draining = true;
    for (const table of this.#tables.values()) table.wake();
    await Promise.all(this.#loops);
    reports.abort();
    await reporting;
    await subscriber.close();
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  async accept(delivery: Delivery): Promise<void> {
    const table = this.#table(delivery.table);
    try {
      if (!table.parked)
        for (const message of delivery.messages) this.#bytes += table.queue.add(message, delivery.partition);
    } catch (error) {
      await this.#park(delivery.table, table, error);
    }
    metrics.sinkBufferBytes.set(this.#bytes);
    table.wake();
    while (this.#bytes > this.#options.settings.FRESHET_BUFFER_BYTES && !this.#failed.signal.aborted) {
      const {promise, resolve} = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      await promise;
    }
    this.#failed.signal.throwIfAborted();
  }

  watermark(watermark: Watermark): void {
    this.#completeness.add(watermark);
  }

  #table(name: string): TableWork {
    const known = this.#tables.get(name);
    if (known) return known;
    const table: TableWork = {
      queue: new SegmentQueue(this.#options.settings.FRESHET_BATCH_BYTES),
      wake: () => {},
      parked: false,
    };
    this.#tables.set(name, table);
    this.#loops.push(this.#loop(name, table).catch(error => this.#fail(error)));
    return table;
  }

  /** A quiet table's row goes out at once; a busy one's wait for each other until the last insert is `flush` old. */
  async #loop(name: string, table: TableWork): Promise<void> {
    const {settings} = this.#options;
    let last = 0;
    while (!this.#failed.signal.aborted) {
      if (table.queue.isEmpty) {
        if (this.#draining) return;
        const {promise, resolve} = Promise.withResolvers<void>();
        table.wake = resolve;
        await promise;
        continue;
      }
      const wait = last + settings.FRESHET_FLUSH_MS - Date.now();
      if (wait > 0 && !table.queue.hasFull && !this.#draining) {
        await sleep(Math.min(wait, 50));
        continue;
      }
      last = Date.now();
      const segment = table.queue.shift()!;
      try {
        await this.#apply(name, segment);
      } catch (error) {
        await this.#park(name, table, error);
      }
      this.#free(segment.bytes);
    }
  }

  async #apply(name: string, segment: Segment): Promise<void> {
    const {client, settings, registry, subscriber, log} = this.#options;
    if (segment.schemaId !== '') {
      const table = await retrying(`definition of ${name}`, () => registry.schema(segment.schemaId), {
        log,
        signal: this.#failed.signal,
      });
      const done = metrics.insertSeconds.startTimer();
      await retrying(`insert into ${name}`, () => applySegment({client, settings, table}, segment), {
        log,
        signal: AbortSignal.any([this.#failed.signal, this.#stop]),
      });
      done();
      metrics.rowsVisible.inc({table: name}, segment.count);
      if (segment.count > 0) this.#freshness.add(table, segment);
    }
    for (const [partition, next] of segment.ends) {
      subscriber.visible(name, partition, next);
      this.#completeness.visible(name, partition, next);
    }
  }

  #free(bytes: number): void {
    this.#bytes -= bytes;
    metrics.sinkBufferBytes.set(this.#bytes);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** Sets the table aside where the failure is its own; anything else ends the sink. */
  async #park(name: string, table: TableWork, thrown: unknown): Promise<void> {
    const error = asPipelineError(thrown);
    if (error.reaction !== 'park' || !this.#options.subscriber.park(name)) throw error;
    const {log, registry} = this.#options;
    table.parked = true;
    for (let segment = table.queue.shift(); segment; segment = table.queue.shift()) this.#free(segment.bytes);
    log.error({code: error.code, hint: error.hint, table: name}, `${name} is parked: ${error.message}`);
    metrics.parked.set({table: name}, 1);
    await registry.park(name, error.message);
  }

  #fail(thrown: unknown): void {
    if (this.#failed.signal.aborted) return;
    this.#failed.abort(asPipelineError(thrown));
    for (const table of this.#tables.values()) table.wake();
    this.#free(0);
  }
}
