import {PipelineError} from '../failures.ts';
import {fromPostgresMicros, type Lsn} from './lsn.ts';

/** What stands in a place of a tuple ('n', 'u', 't' on the wire). */
export const VALUE = {null: 0x6e, unchanged: 0x75, text: 0x74} as const;

/**
 * A row as it lies in the frame: no value is copied. It is valid until the next frame is decoded, since the decoder
 * uses the same two tuples again.
 */
export class Tuple {
  frame: Buffer = Buffer.alloc(0);
  count = 0;
  kind: number[] = [];
  start: number[] = [];
  end: number[] = [];
}

export interface RelationColumn {
  readonly name: string;
  readonly typeOid: number;
  readonly modifier: number;
  readonly inIdentity: boolean;
}

/**
 * The messages of pgoutput (https://www.postgresql.org/docs/18/protocol-logicalrep-message-formats.html): those of
 * protocol version 1, and what version 2 has around the blocks of a transaction that is still open.
 * `old` is the old row under REPLICA IDENTITY FULL (`whole`), otherwise its identity columns with the rest null.
 */
export type Message =
  | {readonly tag: 'begin'; readonly commitLsn: Lsn; readonly commitMicros: bigint; readonly xid: number}
  | {readonly tag: 'commit'; readonly commitLsn: Lsn; readonly endLsn: Lsn}
  | {
      readonly tag: 'relation';
      readonly oid: number;
      readonly schema: string;
      readonly table: string;
      readonly identity: string;
      readonly columns: readonly RelationColumn[];
    }
  | {readonly tag: 'insert'; readonly oid: number; readonly now: Tuple}
  | {
      readonly tag: 'update';
      readonly oid: number;
      readonly old: Tuple | null;
      readonly whole: boolean;
      readonly now: Tuple;
    }
  | {readonly tag: 'delete'; readonly oid: number; readonly old: Tuple; readonly whole: boolean}
  | {readonly tag: 'truncate'; readonly oids: readonly number[]}
  | {
      readonly tag: 'message';
      readonly transactional: boolean;
      readonly lsn: Lsn;
      readonly prefix: string;
      readonly content: Buffer;
    }
  | {readonly tag: 'origin' | 'type'}
  | {readonly tag: 'stream start'; readonly xid: number}
  | {readonly tag: 'stream stop'}
  | {
      readonly tag: 'stream commit';
      readonly xid: number;
      readonly commitLsn: Lsn;
      readonly endLsn: Lsn;
      readonly commitMicros: bigint;
    }
  | {readonly tag: 'stream abort'; readonly xid: number; readonly subXid: number};

/** Reads one frame after another. A frame that is cut or damaged throws `pg.protocol`; nothing is guessed. */
export class PgoutputDecoder {
  readonly #now = new Tuple();
  readonly #old = new Tuple();
  #frame: Buffer = Buffer.alloc(0);
  #at = 0;
  #end = 0;

  /** Decodes `frame[start, end)`, the payload of one XLogData message. */
  decode(frame: Buffer, start = 0, end = frame.length): Message {
    this.#frame = frame;
    this.#at = start;
    this.#end = end;
    const message = this.#message(this.#byte());
    if (this.#at !== this.#end) throw damaged(`${this.#end - this.#at} bytes left behind a ${message.tag}`);
    return message;
  }

  #message(tag: number): Message {
    switch (tag) {
      case 0x42: // B
        return {
          tag: 'begin',
          commitLsn: this.#int64() as Lsn,
          commitMicros: fromPostgresMicros(this.#sint64()),
          xid: this.#int32(),
        };
      case 0x43: {
        // C
        this.#byte();
        const commitLsn = this.#int64() as Lsn;
        const endLsn = this.#int64() as Lsn;
        this.#skip(8);
        return {tag: 'commit', commitLsn, endLsn};
      }
      case 0x52: // R
        return this.#relation();
      case 0x49: {
        // I
        const oid = this.#int32();
        this.#expect(0x4e);
        return {tag: 'insert', oid, now: this.#tuple(this.#now)};
      }
      case 0x55: {
        // U
        const oid = this.#int32();
        const mark = this.#byte();
        const old = mark === 0x4b || mark === 0x4f ? this.#tuple(this.#old) : null;
        if (old) this.#expect(0x4e);
        else if (mark !== 0x4e) throw damaged(`an update with the mark ${mark}`);
        return {tag: 'update', oid, old, whole: mark === 0x4f, now: this.#tuple(this.#now)};
      }
      case 0x44: {
        // D
        const oid = this.#int32();
        const mark = this.#byte();
        if (mark !== 0x4b && mark !== 0x4f) throw damaged(`a delete with the mark ${mark}`);
        return {tag: 'delete', oid, old: this.#tuple(this.#old), whole: mark === 0x4f};
      }
      case 0x54: {
        // T
        const count = this.#int32();
        this.#byte();
        if (count * 4 !== this.#end - this.#at) throw damaged(`a truncate of ${count} relations`);
        return {tag: 'truncate', oids: Array.from({length: count}, () => this.#int32())};
      }
      case 0x4d: {
        // M
        const transactional = (this.#byte() & 1) === 1;
        const lsn = this.#int64() as Lsn;
        const prefix = this.#text();
        const length = this.#int32();
        const at = this.#need(length);
        return {tag: 'message', transactional, lsn, prefix, content: this.#frame.subarray(at, at + length)};
      }
      case 0x4f: // O
        this.#skip(8);
        this.#text();
        return {tag: 'origin'};
      case 0x59: // Y
        this.#skip(4);
        this.#text();
        this.#text();
        return {tag: 'type'};
      case 0x53: {
        // S
        const xid = this.#int32();
        this.#byte();
        return {tag: 'stream start', xid};
      }
      case 0x45: // E
        return {tag: 'stream stop'};
      case 0x63: {
        // c
        const xid = this.#int32();
        this.#byte();
        const commitLsn = this.#int64() as Lsn;
        const endLsn = this.#int64() as Lsn;
        return {
          tag: 'stream commit',
          xid,
          commitLsn,
          endLsn,
          commitMicros: fromPostgresMicros(this.#sint64()),
        };
      }
      case 0x41: // A
        return {tag: 'stream abort', xid: this.#int32(), subXid: this.#int32()};
      default:
        throw damaged(`an unknown message ${JSON.stringify(String.fromCharCode(tag))}`);
    }
  }

  #relation(): Message {
    const oid = this.#int32();
    const schema = this.#text();
    const table = this.#text();
    const identity = String.fromCharCode(this.#byte());
    const count = this.#int16();
    const columns: RelationColumn[] = [];
    for (let i = 0; i < count; i++) {
      const inIdentity = (this.#byte() & 1) === 1;
      columns.push({inIdentity, name: this.#text(), typeOid: this.#int32(), modifier: this.#int32() | 0});
    }
    // PostgreSQL leaves the name of pg_catalog out.
    return {tag: 'relation', oid, schema: schema || 'pg_catalog', table, identity, columns};
  }

  #tuple(tuple: Tuple): Tuple {
    const count = this.#int16();
    tuple.frame = this.#frame;
    tuple.count = count;
    for (let i = 0; i < count; i++) {
      const kind = this.#byte();
      tuple.kind[i] = kind;
      if (kind === VALUE.text) {
        const length = this.#int32();
        tuple.start[i] = this.#at;
        this.#skip(length);
        tuple.end[i] = this.#at;
      } else if (kind !== VALUE.null && kind !== VALUE.unchanged) throw damaged(`a value of kind ${kind}`);
    }
    return tuple;
  }

  #need(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#end) throw damaged(`${bytes} bytes wanted, ${this.#end - at} there`);
    this.#at = at + bytes;
    return at;
  }
  #skip(bytes: number): void {
    this.#need(bytes);
  }
  #byte(): number {
    return this.#frame[this.#need(1)]!;
  }
  #int16(): number {
    return this.#frame.readUInt16BE(this.#need(2));
  }
  /** OIDs, xids and lengths are unsigned. */
  #int32(): number {
    return this.#frame.readUInt32BE(this.#need(4));
  }
  #int64(): bigint {
    return this.#frame.readBigUInt64BE(this.#need(8));
  }
  #sint64(): bigint {
    return this.#frame.readBigInt64BE(this.#need(8));
  }
  #text(): string {
    const zero = this.#frame.indexOf(0, this.#at);
    if (zero < 0 || zero >= this.#end) throw damaged('a text without an end');
    const text = this.#frame.toString('utf8', this.#at, zero);
    this.#at = zero + 1;
    return text;
  }
  #expect(mark: number): void {
    const found = this.#byte();
    if (found !== mark) throw damaged(`the mark ${found} where ${mark} was due`);
  }
}

const damaged = (what: string): PipelineError => new PipelineError('pg.protocol', `pgoutput: ${what}`);
