import {setTimeout as sleep} from 'node:timers/promises';
import type {Share} from '../budget.ts';
import {asPipelineError, type PipelineError} from '../failures.ts';
import type {Delivery} from '../kafka/message.ts';
import type {Receiver, Watermark} from '../kafka/transport.ts';
import {metrics} from '../observe/metrics.ts';
import {retrying} from '../retry.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {Completeness} from './completeness.ts';
import type {Placed} from './dead-letters.ts';
import {FreshnessLog} from './freshness-log.ts';
import {Pace, type Turn} from './pace.ts';
import {Refusals} from './refusals.ts';
import {nameOf} from './registry.ts';
import {type Segment, SegmentQueue} from './segments.ts';
import type {SinkOptions} from './sink-options.ts';
import {TableWork} from './table-work.ts';
import {applySegment} from './table-writer.ts';

/** While messages come at shorter intervals there are more. */
const MORE_COME_MS = 100;

/** How often a sink looks whether a table that it set aside is to go on. */
const LOOK_MS = 1_000;

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
  readonly #failed = new AbortController();
  /** Either of both. */
  readonly #ending: AbortSignal;
  readonly #tables = new Map<string, TableWork>();
  readonly #loops: Promise<void>[] = [];
  readonly #pace: Pace;
  readonly #freshness: FreshnessLog;
  readonly #completeness: Completeness;
  readonly #refusals: Refusals;
  readonly #share: Share;
  #draining = false;
  /** When messages came last (performance.now). */
  #acceptedAt = 0;

  constructor(options: SinkOptions, stop: AbortSignal) {
    this.#options = options;
    this.#ending = AbortSignal.any([stop, this.#failed.signal]);
    this.#share = options.budget.share(metrics.sinkBufferBytes);
    options.budget.onPressed = () => this.#wake();
    this.#pace = new Pace(options.settings.FRESHET_FLUSH_MS);
    this.#freshness = new FreshnessLog(options);
    this.#completeness = new Completeness(options);
    this.#refusals = new Refusals(options, this.#ending);
  }

  async run(): Promise<void> {
    const {subscriber} = this.#options;
    const signal = this.#ending;
    const reports = new AbortController();
    const reporting = Promise.all([
      this.#freshness.run(reports.signal),
      this.#completeness.run(reports.signal),
      this.#takeUp(signal),
    ]).catch(error => this.#fail(error));
    try {
      await this.#refusals.learn();
      await subscriber.run(this, signal);
    } catch (error) {
      this.#fail(error);
    }
    this.#draining = true;
    this.#wake();
    await Promise.all(this.#loops);
    reports.abort();
    await reporting;
    await subscriber.close();
    this.#options.budget.close(this.#share);
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  async accept(delivery: Delivery): Promise<void> {
    const table = this.#table(delivery.table);
    const {partition, first, messages} = delivery;
    this.#acceptedAt = performance.now();
    if (!table.parked) {
      if (!table.next.has(partition)) table.next.set(partition, first);
      let grown = 0;
      try {
        for (const message of messages) grown += table.queue.add(message, partition);
      } catch (error) {
        if (asPipelineError(error).reaction !== 'park') throw error;
        this.#again(delivery.table, table);
      } finally {
        this.#hold(grown);
      }
    }
    table.bell.ring();
    if (!this.#failed.signal.aborted) await this.#share.room();
    this.#failed.signal.throwIfAborted();
  }

  watermark(watermark: Watermark, isWhole = false): void {
    this.#completeness.add(watermark, isWhole);
  }

  reassigned(): void {
    this.#completeness.forget();
  }

  #table(name: string): TableWork {
    const known = this.#tables.get(name);
    if (known) return known;
    const {settings, subscriber} = this.#options;
    const keep = subscriber.rewind ? this.#refusals.of(name).size > 0 : 'always';
    const table = new TableWork(settings.FRESHET_BATCH_BYTES, keep);
    this.#tables.set(name, table);
    this.#loops.push(this.#loop(name, table).catch(error => this.#fail(error)));
    return table;
  }

  /** A quiet table's row goes out at once; a busy one's wait for each other until the pace lets them go. */
  async #loop(name: string, table: TableWork): Promise<void> {
    const {budget} = this.#options;
    while (!this.#failed.signal.aborted) {
      if (table.queue.isEmpty) {
        if (this.#draining) return;
        await table.bell.heard();
        continue;
      }
      const moreCome = budget.roomy && performance.now() < this.#acceptedAt + MORE_COME_MS;
      const wait = this.#pace.wait(name, moreCome ? Date.now() - table.queue.oldestCommit / 1000 : 0);
      if (wait > 0 && !table.queue.hasFull && !this.#draining && !budget.pressed) {
        await table.bell.heard(Math.min(wait, MORE_COME_MS));
        continue;
      }
      const turn = await this.#pace.turn(name);
      try {
        await this.#applyNext(name, table, turn);
      } finally {
        turn.leave();
      }
    }
  }

  async #applyNext(name: string, table: TableWork, turn: Turn): Promise<void> {
    const segment = this.#failed.signal.aborted ? undefined : table.queue.shift();
    if (!segment) return; // it was cleared while it waited for its turn
    try {
      await this.#apply(name, table, segment, turn);
    } catch (error) {
      await this.#park(name, table, segment, asPipelineError(error));
    }
    this.#hold(-segment.held);
    if (segment.isSent) segment.rows.release();
  }

  async #apply(name: string, table: TableWork, segment: Segment, turn: Turn): Promise<void> {
    const {delivery} = table;
    try {
      await this.#insert(name, table, segment, turn);
      if (segment.kept) await this.#refusals.applied(name, segment.kept);
    } catch (thrown) {
      const error = asPipelineError(thrown);
      if (error.reaction !== 'park') throw error;
      if (segment.kept) await this.#applyApart(name, table, [...segment.kept], {known: error, turn});
      else this.#again(name, table);
    }
    if (delivery !== table.delivery) return; // all of it comes once more
    table.applied();
    this.#visible(name, table, segment.ends);
  }

  #visible(name: string, table: TableWork, ends: Iterable<readonly [number, bigint]>): void {
    for (const [partition, next] of ends) {
      table.next.set(partition, next);
      this.#options.subscriber.visible(name, partition, next);
      this.#completeness.visible(name, partition, next);
    }
  }

  async #insert(name: string, work: TableWork, segment: Segment, turn: Turn): Promise<void> {
    const {client, settings, registry, letters, log} = this.#options;
    if (segment.broken) throw segment.broken;
    if (segment.schemaId === '') return;
    const table = await retrying(`definition of ${name}`, () => registry.schema(segment.schemaId), {
      log,
      signal: this.#failed.signal,
    });
    if (table.definition.generation <= work.passedOver) return;
    work.passedOver = 0;
    const done = metrics.insertSeconds.startTimer();
    let attempts = 0;
    const insert = async (): Promise<void> => {
      attempts += 1;
      await turn.take();
      try {
        await applySegment({client, settings, table, letters}, segment);
      } catch (error) {
        turn.leave();
        throw error;
      }
    };
    try {
      await retrying(`insert into ${name}`, insert, {log, signal: this.#ending});
      segment.isSent = attempts === 1; // of one that failed something may still be on its way
    } catch (error) {
      if (!(await this.#isReplaced(name, table, error))) throw error;
    }
    done();
    metrics.rowsVisible.inc({table: name}, segment.count);
    if (segment.count > 0) this.#freshness.add(table, segment);
  }

  /** Throws where the table must stop at a message. */
  async #applyApart(
    name: string,
    table: TableWork,
    kept: readonly Placed[],
    {known, turn}: {known: PipelineError; turn: Turn},
  ): Promise<void> {
    const insert = async (messages: readonly Placed[]): Promise<void> => {
      const queue = new SegmentQueue(Number.POSITIVE_INFINITY, false, true);
      for (const {message, partition} of messages) queue.add(message, partition);
      for (let part = queue.shift(); part; part = queue.shift()) await this.#insert(name, table, part, turn);
    };
    const stopped = await this.#refusals.apart(name, kept, insert, known);
    if (!stopped) return;
    const before = kept.slice(0, stopped.at);
    this.#visible(
      name,
      table,
      before.map(({partition, message}) => [partition, message.offset + 1n] as const),
    );
    throw stopped.error;
  }

  /** Has the messages from the first one that is not visible delivered once more, and keeps them. */
  #again(name: string, table: TableWork): void {
    this.#hold(-table.startAgain());
    this.#options.subscriber.rewind?.again(name, table.next);
  }

  /** Tables that were set aside go on where somebody asked for it. */
  async #takeUp(signal: AbortSignal): Promise<void> {
    const {subscriber, registry, log} = this.#options;
    while (subscriber.rewind && !signal.aborted) {
      await sleep(LOOK_MS, undefined, {signal}).catch(() => {});
      const parked = [...this.#tables].filter(([, table]) => table.parked);
      if (parked.length === 0 || signal.aborted) continue;
      const rows = await registry.tables().catch(() => []); // the next look finds more
      for (const [name, table] of parked) {
        const state = rows.find(row => nameOf(row) === name)?.state;
        if (state !== 'streaming' && state !== 'snapshot') continue;
        log.info({table: name}, `${name} is taken up again`);
        table.parked = false;
        this.#again(name, table);
      }
    }
  }

  /**
   * Rows for a target that is gone, because the table was or is being read into a newer one, or is going to be: they are
   * in what is read. That holds also for one that its target could not take: it does not set the table aside once more.
   */
  async #isReplaced(name: string, table: TableSchema, thrown: unknown): Promise<boolean> {
    const {code, reaction} = asPipelineError(thrown);
    if (code !== 'ch.not_set_up' && reaction !== 'park') return false;
    const {registry} = this.#options;
    const row = (await registry.tables()).find(candidate => nameOf(candidate) === name);
    if (!row) return false;
    if (row.state === 'dropped' || (row.state === 'parked' && row.needs_read === 1)) return true;
    const {generations} = await registry.history();
    return (generations.get(name) ?? 0) > table.definition.generation;
  }

  #wake(): void {
    for (const table of this.#tables.values()) table.bell.ring();
  }

  #hold(more: number): void {
    this.#share.hold(this.#share.held + more);
  }

  /** Sets the table aside where the failure is its own; anything else ends the sink. */
  async #park(name: string, table: TableWork, segment: Segment, error: PipelineError): Promise<void> {
    if (error.reaction !== 'park') throw error;
    const {log, registry, subscriber, passOver} = this.#options;
    if (!subscriber.rewind) {
      const {definition} = await registry.schema(segment.schemaId);
      if (!(await passOver?.(name, definition.generation, error))) throw error;
      table.passedOver = definition.generation;
      return this.#visible(name, table, segment.ends);
    }
    subscriber.rewind.park(name);
    log.error({code: error.code, hint: error.hint, table: name}, `${name} is parked: ${error.message}`);
    await registry.park(name, error.message);
    table.parked = true; // behind its record, by which it is taken up again
    this.#hold(-table.clear());
  }

  #fail(thrown: unknown): void {
    if (this.#failed.signal.aborted) return;
    this.#failed.abort(asPipelineError(thrown));
    this.#wake();
    this.#share.settle(true);
  }
}
