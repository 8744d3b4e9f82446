import {Bell} from './bell.ts';
import type {Budget, Share} from './budget.ts';
import type {History} from './continuity.ts';
import {asPipelineError, PipelineError} from './failures.ts';
import {ChangeDecoder, heldBy, type SealedBatch, UnannouncedChange} from './kafka/change-decoder.ts';
import type {Ends} from './kafka/message.ts';
import {FULL_REQUEST} from './kafka/requests.ts';
import type {Publisher} from './kafka/transport.ts';
import {failpoint} from './observe/failpoint.ts';
import type {Log} from './observe/log.ts';
import {metrics} from './observe/metrics.ts';
import type {Landmark} from './remembered.ts';
import type {Settings} from './settings/settings.ts';
import type {CatalogWatch} from './source/catalog-watch.ts';
import {formatLsn, type Lsn, NO_LSN} from './source/lsn.ts';
import type {ChangeStream} from './source/replication-connection.ts';
import {messagePrefix} from './source/schema-messages.ts';
import type {SchemaAction, TableTracker} from './source/table-tracker.ts';
import type {WalClock} from './source/wal-clock.ts';
import {Watermarks} from './watermarks.ts';

export interface CaptureOptions {
  readonly connection: ChangeStream;
  readonly clock: WalClock;
  readonly publisher: Publisher;
  readonly watch: CatalogWatch;
  readonly tracker: TableTracker;
  /** Does what a schema change asks for, between the rows before it and those behind it. */
  readonly apply: (action: SchemaAction) => Promise<void>;
  /** Told of each position up to which the stream was decoded, and all of it is durable. */
  readonly onStreamed: (position: Lsn) => void;
  readonly history: History;
  /** Where the slot stands; what is sent again, and keepalives on the way there, are no progress. */
  readonly confirmed: Lsn;
  /** What an earlier run has written down: up to where it had sent all, and the last transaction of it. */
  readonly position: Lsn;
  readonly last: Landmark | undefined;
  /** Writes down what may be acknowledged, and the last transaction before it. False where that cannot be done now. */
  readonly remember: (position: Lsn, last: Landmark | undefined) => Promise<boolean>;
  readonly database: string;
  readonly epoch: number;
  /** Where the topics ended at the start: the first watermark waits for it. */
  readonly ends: Ends;
  readonly settings: Settings;
  readonly log: Log;
  readonly budget: Budget;
}

const TICK_MS = 1_000;
/** Batches that wait to be sent: more of them make nothing faster. */
const MOST_QUEUED = 2;

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
  readonly #share: Share;
  readonly #fullBytes: number;
  readonly #watermarks: Watermarks;
  /** In memory, by the queue and what is not durable yet. */
  #queuedBytes = 0;
  /** When the walsender was last made to wait; 0 where it does not. */
  #pausedAt = 0;
  /** To be called when the queue has become shorter. */
  #shorter: () => void = () => {};
  readonly #bell = new Bell();
  /** Is a batch being handed over? */
  #sending = false;
  /** Batches on their way, from the beginning of their sending until all behind it is done. */
  #inFlight = 0;
  /** All that was handed over is durable. */
  #finished: Promise<void> = Promise.resolve();
  #stopping = false;
  /** How often something came from the server, and when that was last looked at. */
  #heard = 0;
  #heardBefore = -1;
  #heardAt = 0;
  /** All before it is durable. */
  #durable: Lsn = NO_LSN;
  /** Written down, and so may be acknowledged. */
  #remembered: Lsn;
  #remembering: Promise<void> | undefined;
  #last: Landmark | undefined;

  constructor(options: CaptureOptions) {
    this.#options = options;
    this.#remembered = options.confirmed;
    this.#last = options.last;
    const {tracker, database, epoch, settings, history} = options;
    this.#watermarks = new Watermarks(options);
    this.#fullBytes = Math.min(settings.FRESHET_BATCH_BYTES, FULL_REQUEST);
    this.#share = options.budget.share(metrics.captureBufferBytes);
    this.#decoder = new ChangeDecoder({
      tracker,
      epoch,
      history,
      messagePrefix: messagePrefix(settings),
      origin: {prefix: settings.FRESHET_TOPIC_PREFIX, database},
      isDirect: !options.publisher.isLog,
    });
  }

  async run(signal: AbortSignal): Promise<void> {
    const {connection, settings} = this.#options;
    let unannounced: UnannouncedChange | undefined;
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
      // What is told of before goes first: it is written down in its order, or a replay would follow it behind this one.
      if (error instanceof UnannouncedChange) {
        unannounced = error;
        this.#seal();
      } else this.#fail(error);
    }
    clearInterval(ticker);
    this.#stopping = true;
    this.#bell.ring();
    // A sender may be held up for long: a failed stream lets go of the slot before.
    if (this.#failed.signal.aborted || unannounced) connection.close();
    await sender;
    await this.#finished.catch(() => {}); // it has failed then
    if (unannounced) this.#fail(unannounced);
    try {
      if (!this.#failed.signal.aborted) {
        await this.#remembering;
        await this.#remember();
        this.#acknowledge();
      }
    } finally {
      connection.close();
      this.#options.budget.close(this.#share);
    }
    if (this.#failed.signal.aborted) throw this.#failed.signal.reason;
  }

  #onData(lsn: Lsn, frame: Buffer, start: number): void {
    this.#heard += 1;
    this.#decoder.push(lsn, frame, start);
    // While nothing is being sent a commit goes out at once; otherwise commits gather until the way is free.
    if (this.#decoder.bytes >= this.#fullBytes || this.#decoder.mustSeal) this.#seal();
    else if (!this.#sending && !this.#decoder.inTransaction && this.#decoder.hasWork) this.#bell.ring();
    this.#share.hold(this.#queuedBytes + this.#decoder.held);
    if (!this.#pausedAt && (this.#share.over || this.#queue.length >= MOST_QUEUED)) this.#pause();
  }

  #pause(): void {
    const {connection} = this.#options;
    const {promise: shorter, resolve} = Promise.withResolvers<void>();
    this.#pausedAt = performance.now();
    connection.pause();
    this.#shorter = resolve;
    this.#bell.ring(); // also what there is of a transaction goes now, or nothing would make room
    if (this.#queue.length < MOST_QUEUED) resolve();
    Promise.all([this.#share.room(), shorter]).then(() => {
      this.#pausedAt = 0;
      this.#heard += 1;
      connection.resume();
    });
  }

  #seal(): void {
    const sealed = this.#decoder.seal();
    for (const one of sealed) this.#queuedBytes += heldBy(one);
    this.#queue.push(...sealed);
    this.#bell.ring();
  }

  /** Is there something that can go as it is? A transaction that is still coming in goes when it fills a batch, or the budget. */
  get #ready(): boolean {
    return this.#decoder.hasWork && (this.#pausedAt > 0 || !this.#decoder.inTransaction);
  }

  /** Nothing decoded that is not durable yet, and no transaction half way? */
  get #idle(): boolean {
    return (
      !this.#decoder.inTransaction &&
      !this.#decoder.hasWork &&
      this.#queue.length === 0 &&
      this.#inFlight === 0
    );
  }

  #onKeepalive(walEnd: Lsn, replyRequested: boolean): void {
    this.#heard += 1;
    this.#options.history.passed(walEnd);
    if (this.#idle && walEnd > this.#durable) {
      this.#advance(walEnd);
      this.#bell.ring();
    }
    if (replyRequested) this.#acknowledge();
  }

  #advance(position: Lsn): void {
    this.#durable = position;
    this.#options.onStreamed(position);
  }

  /** Never backwards, and never past what is durable: the server may throw away what is before it. */
  #acknowledge(replyNow = false): void {
    failpoint('capture.before_ack');
    this.#options.connection.sendStatus(this.#remembered, replyNow);
  }

  /** Writes down up to where all is durable, so that a slot that stands behind it was moved by somebody else. */
  #remember(): Promise<void> {
    if (this.#durable <= this.#remembered) return Promise.resolve();
    if (this.#durable <= this.#options.position) {
      this.#remembered = this.#durable; // what is written down goes further, and has a later transaction to look for
      return Promise.resolve();
    }
    const [position, last, watermarked] = [this.#durable, this.#last, this.#watermarks.position];
    this.#remembering ??= (async () => {
      const {publisher, remember} = this.#options;
      let known = position;
      // ClickHouse may be away for long, and Kafka have room for that: its last watermark tells the same.
      if (!(await remember(position, last))) known = publisher.isLog ? watermarked : NO_LSN;
      if (known > this.#remembered) this.#remembered = known;
      this.#remembering = undefined;
    })();
    return this.#remembering;
  }

  #tick(): void {
    // A server that was asked for an answer each second and gave none for so long is not there any more.
    const {FRESHET_SILENCE_MS: silence} = this.#options.settings;
    const heard = this.#heard;
    if (heard !== this.#heardBefore) this.#heardAt = performance.now();
    this.#heardBefore = heard;
    if (!this.#pausedAt && performance.now() - this.#heardAt > silence) {
      // Where this process itself stood still, the answer is there and only waits to be read.
      setImmediate(() => {
        if (this.#heard !== heard) return;
        this.#fail(new PipelineError('pg.unavailable', `no word from the walsender for ${silence / 1000} s`));
      });
      return;
    }
    this.#acknowledge(true);
    void this.#remember().then(() => this.#stopping || this.#acknowledge());
    if (this.#pausedAt && performance.now() - this.#pausedAt > TICK_MS) this.#letGo();
    const {clock, watch, tracker} = this.#options;
    for (const looked of [clock.tick(this.#idle), watch.tick(tracker.unconfirmed)])
      looked.catch(error => this.#fail(error));
    this.#bell.ring(); // the clock may have been reached
  }

  /**
   * A walsender that nobody reads from does not end when it is told to, and the checkpoint that wants to throw its WAL
   * away, as max_slot_wal_keep_size says, waits for it (PostgreSQL 18.4), while the disk fills up.
   */
  #letGo(): void {
    const pausedAt = this.#pausedAt;
    this.#options.clock.slotAtRisk().then(
      atRisk => {
        if (!atRisk || this.#pausedAt !== pausedAt) return;
        const message = 'the slot is about to lose WAL, and nothing more can be read before the sink goes on';
        this.#fail(new PipelineError('pg.unavailable', message));
      },
      () => {}, // the next tick asks again
    );
  }

  async #sendLoop(): Promise<void> {
    while (!this.#failed.signal.aborted) {
      if (this.#queue.length === 0 && this.#ready) this.#seal();
      const next = this.#queue.shift();
      if (next) {
        this.#shorter();
        await this.#send(next);
      } else {
        await this.#idleWatermark();
        if (this.#stopping) return;
        if (this.#queue.length > 0 || this.#ready) continue;
        await this.#bell.heard();
      }
    }
  }

  /** Resolves when the next one can be handed over. */
  async #send(sealed: SealedBatch): Promise<void> {
    const {publisher, apply} = this.#options;
    const {actions, batch} = sealed;
    this.#sending = true;
    this.#inFlight += 1;
    if (actions.length > 0) await this.#finished; // a table changes behind all rows that it had before
    for (const action of actions) await apply(action);
    const done = metrics.publishSeconds.startTimer();
    const published = batch.count > 0 && (await publisher.publish(batch));
    const before = this.#finished;
    this.#finished = (async () => {
      const [ends] = await Promise.all([published ? published.durable : {}, before]);
      done();
      await this.#finish(sealed, ends);
    })();
    this.#finished.catch(error => this.#fail(error));
    // Kafka has them soon; ClickHouse takes many together.
    if (publisher.isLog) await this.#finished;
    this.#sending = false;
  }

  /** It is durable, and all before it. */
  async #finish(sealed: SealedBatch, ends: Ends): Promise<void> {
    const {commit, newest, transactions} = sealed;
    this.#watermarks.add(newest, ends);
    if (commit) {
      if (commit.endLsn > this.#options.position) this.#last = commit;
      this.#advance(commit.endLsn);
      metrics.transactions.inc(transactions);
      const isLast = this.#inFlight === 1 && this.#queue.length === 0;
      if (isLast || this.#watermarks.due) await this.#watermarks.publish(commit.endLsn, commit.commitMicros);
    }
    this.#inFlight -= 1;
    this.#queuedBytes -= heldBy(sealed);
    sealed.batch.bytes.release();
    this.#share.hold(this.#queuedBytes + this.#decoder.held);
    if (this.#inFlight === 0) this.#bell.ring(); // the clock may have been reached
  }

  /** On a quiet database the clock tells up to which time the position is complete. */
  async #idleWatermark(): Promise<void> {
    if (!this.#idle) return;
    const reached = this.#options.clock.reached(this.#durable);
    if (reached) await this.#watermarks.publish(reached.lsn, reached.micros);
  }

  #fail(thrown: unknown): void {
    if (this.#failed.signal.aborted) return;
    const error = asPipelineError(thrown);
    this.#options.log.debug(
      {code: error.code, durable: formatLsn(this.#durable)},
      `capture ends: ${error.message}`,
    );
    this.#failed.abort(error);
    this.#bell.ring();
  }
}
