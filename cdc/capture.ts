import {asPipelineError, PipelineError} from './failures.ts';
import {ChangeDecoder, type SealedBatch} from './kafka/change-decoder.ts';
import type {Ends} from './kafka/message.ts';
import type {Publisher} from './kafka/transport.ts';
import {failpoint} from './observe/failpoint.ts';
import type {Log} from './observe/log.ts';
import {metrics} from './observe/metrics.ts';
import type {Settings} from './settings/settings.ts';
import {formatLsn, type Lsn, NO_LSN} from './source/lsn.ts';
import type {ReplicationConnection} from './source/replication-connection.ts';
import type {CapturedTable} from './source/tables.ts';
import type {WalClock} from './source/wal-clock.ts';

export interface CaptureOptions {
  readonly connection: ReplicationConnection;
  readonly clock: WalClock;
  readonly publisher: Publisher;
  readonly tables: readonly CapturedTable[];
  readonly database: string;
  readonly epoch: number;
  /** Where the topics ended at the start: the first watermark waits for it. */
  readonly ends: Ends;
  readonly settings: Settings;
  readonly log: Log;
}

const TICK_MS = 1_000;
/** A server that was asked for an answer each second and gave none for so long is not there any more. */
const SILENCE_MS = 60_000;
/** Watermarks are at least so far apart while changes flow. */
const WATERMARK_MS = 100;

/**
 * Streams changes from the slot to the publisher until the signal aborts; then what is decoded is still sent and
 * acknowledged. Rejects on any failure, with nothing acknowledged that is not durable.
 */
export async function capture(options: CaptureOptions, signal: AbortSignal): Promise<void> {
  await new Capture(options).run(signal);
}

class Capture {
  readonly #options: CaptureOptions;
  readonly #decoder: ChangeDecoder;
  readonly #failed = new AbortController();
  readonly #queue: SealedBatch[] = [];
  #queuedBytes = 0;
  #paused = false;
  #wake: () => void = () => {};
  #sending = false;
  #stopping = false;
  #heardAt = Date.now();
  /** All before it is durable. */
  #durable: Lsn = NO_LSN;
  #watermarkAt = 0;
  #newest: Record<string, string> = {};
  #ends: Record<string, Readonly<Record<number, string>>> = {};

  constructor(options: CaptureOptions) {
    this.#options = options;
    const {tables, database, epoch, publisher, settings} = options;
    this.#ends = {...options.ends};
    this.#decoder = new ChangeDecoder({
      tables,
      epoch,
      origin: {prefix: settings.FRESHET_TOPIC_PREFIX, database},
      partitions: table => publisher.partitions(table),
      onUncaptured: table =>
        options.log.warn(
          {table},
          `${table} is in the publication, but not captured: it is excluded, or was made after the start and is taken in at the next one`,
        ),
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const {connection, settings} = this.#options;
    const ticker = setInterval(() => this.#tick(), TICK_MS);
    const sender = this.#sendLoop().catch(error => this.#fail(error));
    try {
      await connection.stream({
        slot: settings.FRESHET_SLOT,
        publication: settings.FRESHET_PUBLICATION,
        signal: AbortSignal.any([signal, this.#failed.signal]),
        onData: (lsn, frame, start) => this.#onData(lsn, frame, start),
        onKeepalive: (walEnd, replyRequested) => this.#onKeepalive(walEnd, replyRequested),
      });
    } catch (error) {
      this.#fail(error);
    }
    clearInterval(ticker);
    this.#stopping = true;
    this.#wake();
    await sender;
    try {
      this.#acknowledge();
    } finally {
      connection.close();
    }
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  #onData(lsn: Lsn, frame: Buffer, start: number): void {
    this.#heardAt = Date.now();
    const {FRESHET_BATCH_BYTES, FRESHET_BUFFER_BYTES} = this.#options.settings;
    this.#decoder.push(lsn, frame, start);
    // While nothing is being sent a commit goes out at once; otherwise commits gather until the way is free.
    if (this.#decoder.bytes >= FRESHET_BATCH_BYTES) this.#seal();
    else if (!this.#sending && !this.#decoder.inTransaction && this.#decoder.hasWork) this.#wake();
    if (this.#queuedBytes + this.#decoder.bytes > FRESHET_BUFFER_BYTES && !this.#paused) {
      this.#paused = true;
      this.#options.connection.pause();
    }
  }

  #seal(): void {
    this.#queuedBytes += this.#decoder.bytes;
    metrics.captureBufferBytes.set(this.#queuedBytes);
    this.#queue.push(this.#decoder.seal());
    this.#wake();
  }

  /** Nothing decoded that is not durable yet, and no transaction half way? */
  get #idle(): boolean {
    return (
      !this.#decoder.inTransaction && !this.#decoder.hasWork && this.#queue.length === 0 && !this.#sending
    );
  }

  #onKeepalive(walEnd: Lsn, replyRequested: boolean): void {
    this.#heardAt = Date.now();
    if (this.#idle && walEnd > this.#durable) {
      this.#durable = walEnd;
      this.#wake();
    }
    if (replyRequested) this.#acknowledge();
  }

  /** Never backwards, and never past what is durable: the server may throw away what is before it. */
  #acknowledge(replyNow = false): void {
    failpoint('capture.before_ack');
    this.#options.connection.sendStatus(this.#durable, replyNow);
  }

  #tick(): void {
    if (!this.#paused && Date.now() - this.#heardAt > SILENCE_MS) {
      this.#fail(
        new PipelineError('pg.unavailable', `no word from the walsender for ${SILENCE_MS / 1000} s`),
      );
      return;
    }
    this.#acknowledge(true);
    this.#options.clock.tick(this.#idle);
    this.#wake(); // the clock may have been reached
  }

  async #sendLoop(): Promise<void> {
    while (!this.#failed.signal.aborted) {
      // A transaction that is still coming in goes on its own when it fills a batch.
      if (this.#queue.length === 0 && this.#decoder.hasWork && !this.#decoder.inTransaction) this.#seal();
      const next = this.#queue.shift();
      if (next) await this.#send(next);
      else {
        await this.#idleWatermark();
        if (this.#stopping) return;
        const {promise, resolve} = Promise.withResolvers<void>();
        this.#wake = resolve;
        if (this.#queue.length > 0 || (this.#decoder.hasWork && !this.#decoder.inTransaction)) continue;
        await promise;
      }
    }
  }

  async #send(sealed: SealedBatch): Promise<void> {
    const {publisher, connection, settings} = this.#options;
    const {batch, commit, newest, transactions} = sealed;
    this.#sending = true;
    const done = metrics.publishSeconds.startTimer();
    if (batch.count > 0) this.#merge(await publisher.publish(batch.messages()));
    done();
    Object.assign(this.#newest, newest);
    if (commit) {
      this.#durable = commit.endLsn;
      metrics.transactions.inc(transactions);
      if (this.#queue.length === 0 || Date.now() - this.#watermarkAt > WATERMARK_MS) {
        await this.#watermark(commit.endLsn, commit.commitMicros);
      }
    }
    this.#sending = false;
    this.#queuedBytes -= batch.bytes.length;
    metrics.captureBufferBytes.set(this.#queuedBytes);
    if (this.#paused && this.#queuedBytes < settings.FRESHET_BUFFER_BYTES / 2) {
      this.#paused = false;
      this.#heardAt = Date.now();
      connection.resume();
    }
  }

  #merge(ends: Ends): void {
    for (const [table, partitions] of Object.entries(ends)) {
      this.#ends[table] = {...this.#ends[table], ...partitions};
    }
  }

  /** On a quiet database the clock tells up to which time the position is complete. */
  async #idleWatermark(): Promise<void> {
    if (!this.#idle) return;
    const reached = this.#options.clock.reached(this.#durable);
    if (reached) await this.#watermark(reached.lsn, reached.micros);
  }

  async #watermark(position: Lsn, micros: bigint): Promise<void> {
    this.#watermarkAt = Date.now();
    const [newest, ends] = [this.#newest, this.#ends];
    this.#newest = {};
    this.#ends = {};
    await this.#options.publisher.watermark({
      position: position.toString(),
      micros: micros.toString(),
      newest,
      ends,
    });
  }

  #fail(thrown: unknown): void {
    if (this.#failed.signal.aborted) return;
    const error = asPipelineError(thrown);
    this.#options.log.debug(
      {code: error.code, durable: formatLsn(this.#durable)},
      `capture ends: ${error.message}`,
    );
    this.#failed.abort(error);
    this.#wake();
  }
}
