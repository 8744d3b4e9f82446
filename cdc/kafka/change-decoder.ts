import {PipelineError, unreachable} from '../failures.ts';
import {metrics} from '../observe/metrics.ts';
import type {Lsn} from '../source/lsn.ts';
import {type Message, PgoutputDecoder} from '../source/pgoutput.ts';
import {RowEncoder} from '../source/row-encoder.ts';
import type {CapturedTable} from '../source/tables.ts';
import {Batch, EnvelopeWriter, type TransactionContext} from './envelope.ts';

/** The end of a transaction: what was decoded before it is whole. */
export interface Commit {
  readonly endLsn: Lsn;
  readonly commitMicros: bigint;
}

/** Decoded changes that are sent together, and the last commit among them. */
export interface SealedBatch {
  readonly batch: Batch;
  readonly commit: Commit | undefined;
  readonly transactions: number;
  /** 'schema.table' → newest commit, µs */
  readonly newest: Readonly<Record<string, string>>;
}

/**
 * Turns frames of the slot into batches of envelopes. Versions count the changes of the stream itself, so that a
 * replay gives each the version it had.
 */
export class ChangeDecoder {
  readonly #decoder = new PgoutputDecoder();
  readonly #tables: ReadonlyMap<number, CapturedTable>;
  readonly #names: ReadonlySet<string>;
  readonly #uncaptured = new Map<number, string>();
  readonly #told = new Set<number>();
  readonly #onUncaptured: (table: string) => void;
  readonly #writers = new Map<number, EnvelopeWriter>();
  readonly #origin: {prefix: string; database: string};
  readonly #epoch: number;
  readonly #partitions: (table: string) => number;
  #transaction: TransactionContext | undefined;
  #ordinal = 0;
  #batch = new Batch();
  #commit: Commit | undefined;
  #transactions = 0;
  #newest: Record<string, string> = {};
  #touched = new Set<string>();

  constructor(options: {
    tables: readonly CapturedTable[];
    origin: {prefix: string; database: string};
    epoch: number;
    partitions: (table: string) => number;
    /** A table of the publication that is not captured has changed. */
    onUncaptured: (table: string) => void;
  }) {
    this.#names = new Set(options.tables.map(table => table.schema.name));
    this.#onUncaptured = options.onUncaptured;
    this.#tables = new Map(options.tables.map(table => [table.oid, table]));
    this.#origin = options.origin;
    this.#epoch = options.epoch;
    this.#partitions = options.partitions;
  }

  /** Between a transaction's begin and its commit? */
  get inTransaction(): boolean {
    return this.#transaction !== undefined;
  }
  get bytes(): number {
    return this.#batch.bytes.length;
  }
  /** Is there anything to send, or a commit to report? */
  get hasWork(): boolean {
    return this.#batch.count > 0 || this.#commit !== undefined;
  }

  /** Takes what was decoded so far. A transaction may span batches; the commit comes with the last of them. */
  seal(): SealedBatch {
    const sealed = {
      batch: this.#batch,
      commit: this.#commit,
      transactions: this.#transactions,
      newest: this.#newest,
    };
    this.#batch = new Batch();
    this.#commit = undefined;
    this.#transactions = 0;
    this.#newest = {};
    return sealed;
  }

  /** Decodes one frame. Throws `pg.protocol`, or `pg.schema_changed` where a table is not what it was. */
  push(lsn: Lsn, frame: Buffer, start: number): void {
    const message = this.#decoder.decode(frame, start);
    switch (message.tag) {
      case 'begin':
        this.#transaction = {...message, epoch: this.#epoch};
        this.#ordinal = 0;
        return;
      case 'commit': {
        const {commitMicros} = this.#current();
        this.#commit = {endLsn: message.endLsn, commitMicros};
        this.#transactions += 1;
        for (const table of this.#touched) this.#newest[table] = commitMicros.toString();
        this.#touched.clear();
        this.#transaction = undefined;
        return;
      }
      case 'relation':
        this.#relation(message);
        return;
      case 'insert':
      case 'update':
      case 'delete':
        this.#change(message, lsn);
        return;
      case 'truncate':
        for (const oid of message.oids) this.#truncate(oid, lsn);
        return;
      case 'message':
      case 'origin':
      case 'type':
        return;
      default:
        unreachable(message);
    }
  }

  #current(): TransactionContext {
    if (!this.#transaction) throw new PipelineError('pg.protocol', 'a change outside of a transaction');
    return this.#transaction;
  }

  /** Checks that the table is as the catalog had it at the start, and learns in which order its values come. */
  #relation(relation: Message & {tag: 'relation'}): void {
    const name = `${relation.schema}.${relation.table}`;
    const known = this.#tables.get(relation.oid);
    const changed = (what: string): PipelineError =>
      new PipelineError('pg.schema_changed', `${name} ${what}`, {table: name});
    if (!known) {
      // A partition is described beside its root; other tables may be in the publication and not be wanted here.
      if (this.#names.has(name)) throw changed('was made anew under the same name');
      this.#uncaptured.set(relation.oid, name);
      return;
    }
    if (known.schema.name !== name) throw changed(`was ${known.schema.name} before`);
    const {columns} = known.schema;
    const extra = relation.columns.find(column => !columns.some(own => own.name === column.name));
    if (extra) throw changed(`has a new column ${extra.name}`);
    const slots = columns.map(own => {
      const slot = relation.columns.findIndex(column => column.name === own.name);
      const column = relation.columns[slot];
      if (!column) throw changed(`has no column ${own.name} any more`);
      if (column.typeOid !== own.typeOid) throw changed(`has another type in column ${own.name}`);
      if (relation.identity !== 'f' && column.inIdentity !== own.inKey) throw changed('has another key');
      return slot;
    });
    this.#writers.set(relation.oid, new EnvelopeWriter(new RowEncoder(known.schema, slots), this.#origin));
  }

  #writer(oid: number): EnvelopeWriter {
    const writer = this.#writers.get(oid);
    if (!writer)
      throw new PipelineError('pg.protocol', `a change of relation ${oid}, which was not described`);
    return writer;
  }

  /** Is the change of a table that is not captured? Told once; it has its ordinal all the same. */
  #passedOver(oid: number): boolean {
    const name = this.#uncaptured.get(oid);
    if (name === undefined) return false;
    this.#ordinal += 1;
    if (!this.#told.has(oid)) this.#onUncaptured(name);
    this.#told.add(oid);
    return true;
  }

  #change(message: Message & {tag: 'insert' | 'update' | 'delete'}, lsn: Lsn): void {
    const transaction = this.#current();
    if (this.#passedOver(message.oid)) return;
    const writer = this.#writer(message.oid);
    const {name} = writer.rows.table;
    const partitions = this.#partitions(name);
    this.#touched.add(name);
    metrics.changes.inc({table: name});
    const old = message.tag === 'insert' ? null : message.old;
    const whole = message.tag !== 'insert' && message.whole;
    const now = message.tag === 'delete' ? null : message.now;
    const moved = old !== null && now !== null && writer.rows.keyChanged(now, old);
    const base = {lsn, whole, moved: false};
    if (moved) {
      // As Debezium has it: the old key goes, the new one comes.
      writer.write(
        this.#batch,
        {...base, op: 'd', old, now: null, ordinal: ++this.#ordinal},
        transaction,
        partitions,
      );
    }
    const op = message.tag === 'delete' ? 'd' : moved || message.tag === 'insert' ? 'c' : 'u';
    writer.write(
      this.#batch,
      {...base, op, old, now, moved, ordinal: ++this.#ordinal},
      transaction,
      partitions,
    );
  }

  #truncate(oid: number, lsn: Lsn): void {
    const transaction = this.#current();
    if (this.#passedOver(oid)) return;
    const writer = this.#writer(oid);
    const {name} = writer.rows.table;
    this.#touched.add(name);
    writer.truncate(this.#batch, {ordinal: ++this.#ordinal, lsn}, transaction, this.#partitions(name));
  }
}
