import {randomUUID} from 'node:crypto';
import {closeSync, mkdirSync, openSync, read, unlinkSync, writeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import {PipelineError} from '../failures.ts';
import {metrics} from '../observe/metrics.ts';
import type {Settings} from '../settings/settings.ts';
import {type Lsn, toPostgresMicros} from './lsn.ts';
import {type Message, PgoutputDecoder} from './pgoutput.ts';
import type {ReplicationConnection, StreamOptions} from './replication-connection.ts';
import {messagePrefix} from './schema-messages.ts';

const TAG = {abort: 0x41, commit: 0x63, message: 0x4d, origin: 0x4f, start: 0x53, stop: 0x45} as const;
/** Before each frame in a file: its length, its position, the transaction or sub-transaction that it belongs to. */
const HEAD = 4 + 8 + 4;
const BLOCK_BYTES = 256 << 10;
/** Tag, flags and position stand before a logical message's prefix. */
const BEFORE_PREFIX = 1 + 1 + 8;

/** A transaction that PostgreSQL sends while it is still open. */
interface OpenTransaction {
  readonly xid: number;
  readonly file: number;
  bytes: number;
  /** Sub-transactions that were rolled back. */
  readonly aborted: Set<number>;
  tellsOfSchemaChanges: boolean;
}

type Held = {lsn: Lsn; frame: Buffer} | {walEnd: Lsn; replyRequested: boolean};

/**
 * A walsender connection that sends large transactions while they are still open (pgoutput's protocol 2). Their frames
 * wait in files; when one commits they come out as protocol 1 would have sent them, between a begin and a commit. So
 * nobody behind this knows the difference, and the ordinals of versions are the same.
 *
 * What is still open is outstanding for nobody: PostgreSQL sends all of it again unless it has committed before the
 * position that was acknowledged.
 */
export class StreamedTransactions {
  readonly #connection: ReplicationConnection;
  readonly #folder: string;
  readonly #most: number;
  readonly #prefix: Buffer;
  readonly #decoder = new PgoutputDecoder();
  readonly #open = new Map<number, OpenTransaction>();
  readonly #failed = Promise.withResolvers<never>();
  /** What arrived behind a commit that is being read back: no more than the rest of one piece of the socket. */
  readonly #held: Held[] = [];
  #options: StreamOptions | undefined;
  /** The transaction whose frames are coming in. */
  #current: OpenTransaction | undefined;
  #block = Buffer.allocUnsafe(BLOCK_BYTES);
  #filled = 0;
  #spilled = 0;
  #replay: Promise<void> | undefined;
  #paused = false;
  #over = false;
  #wake: () => void = () => {};

  constructor(connection: ReplicationConnection, settings: Settings) {
    this.#connection = connection;
    this.#folder = settings.FRESHET_SPILL_DIR || tmpdir();
    this.#most = settings.FRESHET_SPILL_BYTES || Number.POSITIVE_INFINITY;
    this.#prefix = Buffer.from(`${messagePrefix(settings)}\0`);
  }

  async stream(options: StreamOptions): Promise<void> {
    this.#options = options;
    try {
      await Promise.race([
        this.#failed.promise,
        this.#connection.stream({
          ...options,
          streaming: true,
          onData: (lsn, frame, start) => {
            if (this.#replay) this.#held.push({lsn, frame: Buffer.from(frame.subarray(start))});
            else this.#take(lsn, frame, start);
          },
          onKeepalive: (walEnd, replyRequested) => {
            if (this.#replay) this.#held.push({walEnd, replyRequested});
            else options.onKeepalive(walEnd, replyRequested);
          },
        }),
      ]);
    } finally {
      this.#over = true;
      this.#wake();
      await this.#replay;
      for (const transaction of this.#open.values()) this.#forget(transaction);
    }
  }

  sendStatus(flushed: Lsn, replyNow?: boolean): void {
    this.#connection.sendStatus(flushed, replyNow);
  }
  pause(): void {
    this.#paused = true;
    this.#connection.pause();
  }
  resume(): void {
    this.#paused = false;
    if (this.#replay) this.#wake();
    else this.#connection.resume();
  }
  close(): void {
    this.#connection.close();
  }

  #take(lsn: Lsn, frame: Buffer, start: number): void {
    const tag = frame[start];
    if (tag === TAG.start || tag === TAG.stop || tag === TAG.commit || tag === TAG.abort)
      this.#control(this.#decoder.decode(frame, start));
    else if (!this.#current) this.#options!.onData(lsn, frame, start);
    // A transaction's origin has no xid before it, and is nothing that is used.
    else if (tag !== TAG.origin) this.#keep(this.#current, lsn, frame, start);
  }

  #control(message: Message): void {
    if (message.tag === 'stream start') {
      if (this.#current) throw damaged('a block of a transaction within another');
      this.#current = this.#open.get(message.xid) ?? this.#create(message.xid);
    } else if (message.tag === 'stream stop') {
      if (!this.#current) throw damaged('the end of a block that was not begun');
      this.#flush(this.#current);
      this.#current = undefined;
    } else if (message.tag === 'stream abort') {
      const transaction = this.#open.get(message.xid);
      if (message.xid === message.subXid) {
        if (transaction) this.#forget(transaction);
      } else if (transaction) {
        // PostgreSQL (18.4) says of a logical message to which transaction it belongs, but not to which sub-transaction.
        if (transaction.tellsOfSchemaChanges) {
          throw new PipelineError(
            'pg.streaming',
            `a large transaction alters tables and rolls back to a savepoint (xid ${message.xid})`,
          );
        }
        transaction.aborted.add(message.subXid);
      }
    } else if (message.tag === 'stream commit') {
      const transaction = this.#open.get(message.xid);
      if (!transaction) throw damaged(`the commit of transaction ${message.xid}, which was not sent`);
      this.#connection.pause();
      this.#replay = this.#readBack(transaction, message).catch(error => this.#failed.reject(error));
    }
  }

  /** The file has no name from the start: whatever ends the process, nothing is left of it. */
  #create(xid: number): OpenTransaction {
    const name = path.join(this.#folder, `freshet-${randomUUID()}`);
    const file = attempt(() => {
      mkdirSync(this.#folder, {recursive: true, mode: 0o700});
      const opened = openSync(name, 'wx+', 0o600);
      unlinkSync(name);
      return opened;
    });
    const transaction = {xid, file, bytes: 0, aborted: new Set<number>(), tellsOfSchemaChanges: false};
    this.#open.set(xid, transaction);
    return transaction;
  }

  #forget(transaction: OpenTransaction): void {
    this.#open.delete(transaction.xid);
    closeSync(transaction.file);
    this.#spilled -= transaction.bytes;
    metrics.spilledBytes.set(this.#spilled);
  }

  /** Without the xid behind its tag the frame is one of protocol 1. */
  #keep(transaction: OpenTransaction, lsn: Lsn, frame: Buffer, start: number): void {
    const length = frame.length - start - 4;
    if (length < 1) throw damaged('a message without its transaction');
    if (this.#filled + HEAD + length > this.#block.length) this.#flush(transaction);
    if (HEAD + length > this.#block.length) this.#block = Buffer.allocUnsafe(HEAD + length);
    const at = this.#filled;
    this.#block.writeUInt32BE(length, at);
    this.#block.writeBigUInt64BE(lsn, at + 4);
    frame.copy(this.#block, at + 12, start + 1, start + 5);
    this.#block[at + HEAD] = frame[start]!;
    frame.copy(this.#block, at + HEAD + 1, start + 5);
    this.#filled = at + HEAD + length;
    if (frame[start] === TAG.message) {
      const prefix = at + HEAD + BEFORE_PREFIX;
      transaction.tellsOfSchemaChanges ||= this.#block
        .subarray(prefix, prefix + this.#prefix.length)
        .equals(this.#prefix);
    }
  }

  /** Written at once, not beside other work: it goes into the system's cache, and the next frame needs the room. */
  #flush(transaction: OpenTransaction): void {
    if (this.#spilled + this.#filled > this.#most)
      throw new PipelineError('pg.streaming', `open transactions take more than ${this.#most} bytes`);
    for (let at = 0; at < this.#filled; ) {
      const from = at;
      at += attempt(() => writeSync(transaction.file, this.#block, from, this.#filled - from));
    }
    transaction.bytes += this.#filled;
    this.#spilled += this.#filled;
    this.#filled = 0;
    if (this.#block.length > BLOCK_BYTES) this.#block = Buffer.allocUnsafe(BLOCK_BYTES);
    metrics.spilledBytes.set(this.#spilled);
  }

  /** Hands out a transaction that has committed; the socket waits, and what was in it already comes behind. */
  async #readBack(transaction: OpenTransaction, commit: Message & {tag: 'stream commit'}): Promise<void> {
    const {onData, signal} = this.#options!;
    onData(commit.commitLsn, beginFrame(commit), 0);
    for await (const {lsn, frame} of framesOf(transaction)) {
      onData(lsn, frame, 0);
      while (this.#paused && !this.#over) {
        const {promise, resolve} = Promise.withResolvers<void>();
        this.#wake = resolve;
        await promise;
      }
      if (this.#over || signal.aborted) return;
    }
    onData(commit.endLsn, commitFrame(commit), 0);
    this.#forget(transaction);
    this.#replay = undefined;
    while (this.#held.length > 0 && !this.#replay && !signal.aborted) {
      const next = this.#held.shift()!;
      if ('frame' in next) this.#take(next.lsn, next.frame, 0);
      else this.#options!.onKeepalive(next.walEnd, next.replyRequested);
    }
    if (!this.#replay && !this.#paused) this.#connection.resume();
  }
}

const readFrom = promisify(read);

/** The frames in a transaction's file, but for those of sub-transactions that were rolled back. */
async function* framesOf({file, bytes, aborted}: OpenTransaction): AsyncGenerator<{lsn: Lsn; frame: Buffer}> {
  let buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  let have = 0;
  for (let position = 0; position < bytes; ) {
    const {bytesRead} = await readFrom(file, buffer, have, buffer.length - have, position);
    if (bytesRead === 0) throw damaged(`a file that ends at ${position} of ${bytes} bytes`);
    position += bytesRead;
    have += bytesRead;
    let at = 0;
    for (; have - at >= HEAD; ) {
      const end = at + HEAD + buffer.readUInt32BE(at);
      if (end > have) break;
      if (!aborted.has(buffer.readUInt32BE(at + 12)))
        yield {lsn: buffer.readBigUInt64BE(at + 4) as Lsn, frame: buffer.subarray(at + HEAD, end)};
      at = end;
    }
    const whole = have - at >= HEAD ? HEAD + buffer.readUInt32BE(at) : HEAD;
    const next = whole > buffer.length ? Buffer.allocUnsafe(whole) : buffer;
    buffer.copy(next, 0, at, have);
    buffer = next;
    have -= at;
  }
}

function beginFrame({xid, commitLsn, commitMicros}: Message & {tag: 'stream commit'}): Buffer {
  const frame = Buffer.alloc(21);
  frame[0] = 0x42;
  frame.writeBigUInt64BE(commitLsn, 1);
  frame.writeBigInt64BE(toPostgresMicros(commitMicros), 9);
  frame.writeUInt32BE(xid, 17);
  return frame;
}

function commitFrame({commitLsn, endLsn, commitMicros}: Message & {tag: 'stream commit'}): Buffer {
  const frame = Buffer.alloc(26);
  frame[0] = 0x43;
  frame.writeBigUInt64BE(commitLsn, 2);
  frame.writeBigUInt64BE(endLsn, 10);
  frame.writeBigInt64BE(toPostgresMicros(commitMicros), 18);
  return frame;
}

/** A full disk, or a folder that cannot be written, ends the stream with nothing of the transaction acknowledged. */
function attempt<T>(write: () => T): T {
  try {
    return write();
  } catch (error) {
    const {message = String(error)} = error as Error;
    throw new PipelineError('pg.streaming', `an open transaction cannot be kept: ${message}`, {cause: error});
  }
}

const damaged = (what: string): PipelineError => new PipelineError('pg.protocol', `pgoutput: ${what}`);
