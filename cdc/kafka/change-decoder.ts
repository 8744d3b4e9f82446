import type {History} from '../continuity.ts';
import {PipelineError, unreachable} from '../failures.ts';
import {metrics} from '../observe/metrics.ts';
import type {Landmark} from '../remembered.ts';
import type {Lsn} from '../source/lsn.ts';
import {type Message, PgoutputDecoder} from '../source/pgoutput.ts';
import {RowEncoder} from '../source/row-encoder.ts';
import {parseSchemaMessage} from '../source/schema-messages.ts';
import type {TableSchema} from '../source/table-schema.ts';
import type {HistoryEntry, SchemaAction, TableTracker} from '../source/table-tracker.ts';
import {Batch} from './batch.ts';
import {EnvelopeWriter} from './envelope.ts';
import {Transaction} from './transaction.ts';

/** The end of a transaction: what was decoded before it is whole. */
export interface Commit extends Landmark {
  readonly endLsn: Lsn;
}

/** Decoded changes that are sent together, and the last commit among them. */
export interface SealedBatch {
  /** To be done before the batch is sent: its rows are as the tables are afterwards. */
  readonly actions: readonly SchemaAction[];
  readonly batch: Batch;
  readonly commit: Commit | undefined;
  readonly transactions: number;
  /** 'schema.table' → newest commit, µs */
  readonly newest: Readonly<Record<string, string>>;
}

/** A table's description, before and after. */
const ACTION_BYTES = 8 << 10;

/** What it takes in memory, roughly. */
export const heldBy = ({actions, batch}: SealedBatch): number => batch.held + actions.length * ACTION_BYTES;

/**
 * Ordinals go by two, for the two halves of a change of key: so they do not depend on which tables are captured, and a
 * replay under other circumstances counts the same.
 */
const STEP = 2;

/** Behind a batch of the same size, for its last row. */
const ROOM = 128 << 10;

/** A table is not what it was, and nothing has told so: its row of `version` cannot be read. */
export class UnannouncedChange extends PipelineError {
  readonly relation: Relation;
  readonly version: bigint;
  constructor(relation: Relation, version: bigint, what: string) {
    const table = `${relation.schema}.${relation.table}`;
    super('pg.schema_changed', `${table} ${what}`, {table});
    this.relation = relation;
    this.version = version;
  }
}

type Relation = Message & {tag: 'relation'};

/** A relation, and the version of the place where it was told of. */
interface ToldRelation {
  readonly relation: Relation;
  readonly at: bigint;
}

/** How the rows of a relation are written. */
interface Route {
  readonly writer: EnvelopeWriter;
  readonly partitioned: boolean;
}

/**
 * Turns frames of the slot into batches of envelopes. Versions count the changes of the stream itself, so that a
 * replay gives each the version it had.
 */
export class ChangeDecoder {
  readonly #decoder = new PgoutputDecoder();
  readonly #tracker: TableTracker;
  readonly #prefix: string;
  readonly #relations = new Map<number, ToldRelation>();
  /** Made anew whenever a relation or a schema message comes. */
  readonly #routes = new Map<number, Route>();
  readonly #rewritten = new Set<number>();
  readonly #origin: {prefix: string; database: string};
  readonly #epoch: number;
  readonly #history: History;
  readonly #sealed: SealedBatch[] = [];
  #actions: SchemaAction[] = [];
  #transaction: Transaction | undefined;
  #ordinal = 0;
  readonly #isDirect: boolean;
  #batch: Batch;
  #commit: Commit | undefined;
  #transactions = 0;
  #newest: Record<string, string> = {};
  #touched = new Set<string>();
  /** table → changes in the batch */
  readonly #changes = new Map<string, number>();

  constructor(options: {
    tracker: TableTracker;
    /** Of the logical messages that tell of schema changes. */
    messagePrefix: string;
    origin: {prefix: string; database: string};
    epoch: number;
    history: History;
    /** Is there no topic between? */
    isDirect: boolean;
  }) {
    this.#tracker = options.tracker;
    this.#prefix = options.messagePrefix;
    this.#origin = options.origin;
    this.#epoch = options.epoch;
    this.#history = options.history;
    this.#isDirect = options.isDirect;
    this.#batch = new Batch(0, options.isDirect);
  }

  /** Between a transaction's begin and its commit? */
  get inTransaction(): boolean {
    return this.#transaction !== undefined;
  }
  get bytes(): number {
    return this.#batch.bytes.length;
  }
  /** What it holds in memory, roughly. */
  get held(): number {
    return this.#batch.held;
  }
  /** Is there anything to send, to do, or a commit to report? */
  get hasWork(): boolean {
    return this.#batch.count > 0 || this.#commit !== undefined || this.mustSeal;
  }
  /** Something is to be done between rows: what was decoded goes on its way now. */
  get mustSeal(): boolean {
    return this.#sealed.length > 0 || this.#actions.length > 0;
  }

  /** Takes what was decoded so far, in order. A transaction may span batches; the commit comes with the last of them. */
  seal(): SealedBatch[] {
    this.#cut();
    return this.#sealed.splice(0);
  }

  #cut(): void {
    this.#sealed.push({
      actions: this.#actions,
      batch: this.#batch,
      commit: this.#commit,
      transactions: this.#transactions,
      newest: this.#newest,
    });
    this.#actions = [];
    // Under load the next one is as large.
    this.#batch = new Batch(this.#batch.bytes.length + (this.#transaction ? ROOM : 0), this.#isDirect);
    this.#commit = undefined;
    this.#transactions = 0;
    this.#newest = {};
    for (const [table, count] of this.#changes) metrics.changes.inc({table}, count);
    this.#changes.clear();
  }

  /** Decodes one frame. Throws `pg.protocol`, `pg.other_history`, or an UnannouncedChange where a table is not what it was. */
  push(lsn: Lsn, frame: Buffer, start: number): void {
    const message = this.#decoder.decode(frame, start);
    switch (message.tag) {
      case 'begin':
        this.#history.begins(message);
        this.#transaction = new Transaction({...message, epoch: this.#epoch});
        this.#ordinal = 0;
        this.#rewritten.clear();
        return;
      case 'commit': {
        const {commitLsn, commitMicros, xid} = this.#current();
        this.#commit = {endLsn: message.endLsn, commitLsn, commitMicros, xid};
        this.#transactions += 1;
        for (const table of this.#touched) this.#newest[table] = commitMicros.toString();
        this.#touched.clear();
        this.#transaction = undefined;
        return;
      }
      case 'relation':
        this.#relations.set(message.oid, {relation: message, at: this.#version()});
        this.#routes.delete(message.oid);
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
        if (message.transactional && message.prefix === this.#prefix) this.#schemaMessage(message.content);
        return;
      case 'origin':
      case 'type':
        return;
      // PostgreSQL 18.4 tells of savepoints in a large transaction that was rolled back also whom it sent nothing of it.
      case 'stream abort':
        return;
      case 'stream start':
      case 'stream stop':
      case 'stream commit':
        throw new PipelineError('pg.protocol', `a ${message.tag} where no open transaction was asked for`);
      default:
        unreachable(message);
    }
  }

  #current(): Transaction {
    if (!this.#transaction) throw new PipelineError('pg.protocol', 'a change outside of a transaction');
    return this.#transaction;
  }

  /** It has an ordinal like a row, so that its place among the rows of its transaction has a version. */
  #schemaMessage(content: Buffer): void {
    const message = parseSchemaMessage(content);
    this.#ordinal += STEP;
    if (message.rewritten != null) this.#rewritten.add(message.rewritten);
    const place = {version: this.#version(), rewritten: this.#rewritten};
    const actions = this.#tracker.take(message, place);
    this.#routes.clear();
    if (actions.length === 0) return;
    if (this.#batch.count > 0 || this.#commit) this.#cut();
    this.#actions.push(...actions);
  }

  #version(): bigint {
    return this.#current().version(this.#ordinal);
  }

  /** How the change that comes next is written. */
  #route(oid: number): Route | undefined {
    const known = this.#routes.get(oid);
    if (known) return known;
    const told = this.#relations.get(oid);
    if (!told) throw new PipelineError('pg.protocol', `a change of relation ${oid}, which was not described`);
    const version = this.#version();
    const entry = this.#tracker.at(oid, version);
    // What is passed over for now may not be in the next transaction.
    if (!entry) return undefined;
    const {schema, partitioned} = entry.table;
    const encoder = new RowEncoder(schema, slotsOf(told, entry, version));
    const route = {writer: new EnvelopeWriter(encoder, this.#origin), partitioned};
    this.#routes.set(oid, route);
    return route;
  }

  #change(message: Message & {tag: 'insert' | 'update' | 'delete'}, lsn: Lsn): void {
    const transaction = this.#current();
    this.#ordinal += STEP;
    const route = this.#route(message.oid);
    if (!route) return;
    const {writer, partitioned} = route;
    const {name} = writer.rows.table;
    this.#touched.add(name);
    this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
    const old = message.tag === 'insert' ? null : message.old;
    // pgoutput says what the root's identity is; the WAL has what that of the partition asks for, the key at least.
    const whole = message.tag !== 'insert' && message.whole && !partitioned;
    const now = message.tag === 'delete' ? null : message.now;
    const column =
      (now && writer.rows.unexpectedNull(now)) ?? (whole && old && writer.rows.unexpectedNull(old));
    if (column) {
      const what = `has NULL in column ${column}, which was NOT NULL before`;
      throw new UnannouncedChange(this.#relations.get(message.oid)!.relation, this.#version(), what);
    }
    const ordinal = this.#ordinal;
    const moved = old !== null && now !== null && writer.rows.keyChanged(now, old);
    if (moved) {
      // As Debezium has it: the old key goes, the new one comes.
      const gone = {op: 'd', old, now: null, ordinal: ordinal - 1, lsn, whole, moved: false} as const;
      writer.write(this.#batch, gone, transaction);
    }
    const op = message.tag === 'delete' ? 'd' : moved || message.tag === 'insert' ? 'c' : 'u';
    writer.write(this.#batch, {op, old, now, ordinal, lsn, whole, moved}, transaction);
  }

  #truncate(oid: number, lsn: Lsn): void {
    const transaction = this.#current();
    this.#ordinal += STEP;
    const writer = this.#route(oid)?.writer;
    if (!writer) return;
    const {name} = writer.rows.table;
    this.#touched.add(name);
    writer.truncate(this.#batch, {ordinal: this.#ordinal, lsn}, transaction);
  }
}

/**
 * Checks that the relation is as the table was described; gives the place of each column in its tuples. Of a name that
 * was told before the description the description knows more: pgoutput (PostgreSQL 18.4) tells of a partitioned table
 * before rows of its leaves, and not again where the table alone was renamed.
 */
function slotsOf({relation, at}: ToldRelation, {since, table}: HistoryEntry, version: bigint): number[] {
  const {schema} = table;
  const {schema: namespace, table: name} = schema.definition;
  const difference = differenceFrom(
    at < since ? {...relation, schema: namespace, table: name} : relation,
    schema,
  );
  if (difference !== undefined) throw new UnannouncedChange(relation, version, difference);
  return schema.columns.map(own => relation.columns.findIndex(column => column.name === own.name));
}

/** Are the relation's rows those of this definition? */
export const describes = (relation: Relation, schema: TableSchema): boolean =>
  differenceFrom(relation, schema) === undefined;

function differenceFrom(relation: Relation, {name, columns}: TableSchema): string | undefined {
  if (name !== `${relation.schema}.${relation.table}`) return `was ${name} before`;
  const extra = relation.columns.find(column => !columns.some(own => own.name === column.name));
  if (extra) return `has a new column ${extra.name}`;
  for (const own of columns) {
    const column = relation.columns.find(candidate => candidate.name === own.name);
    if (!column) return `has no column ${own.name} any more`;
    if (column.typeOid !== own.typeOid) return `has another type in column ${own.name}`;
    if (relation.identity !== 'f' && column.inIdentity !== own.inKey) return 'has another key';
  }
  return undefined;
}
