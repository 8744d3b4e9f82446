import type {PipelineError} from '../failures.ts';
import type {Lsn} from '../source/lsn.ts';
import type {TableSchema} from '../source/table-schema.ts';
import type {Batch} from './batch.ts';
import type {Delivery, Ends, InMessage, OutMessage} from './message.ts';

/** A position up to which every change is durable, and where in the topics the last changes before it lie. */
export interface Watermark {
  /** Positions of an earlier epoch say nothing. */
  readonly epoch: number;
  /** LSN, decimal */
  readonly position: string;
  /** µs since 1970-01-01 UTC: what was committed before this time is before the position. */
  readonly micros: string;
  /** Newest commit (µs) of each table that changed since the last watermark. */
  readonly newest: Readonly<Record<string, string>>;
  readonly ends: Ends;
}

/** Messages that were taken. */
export interface Published {
  /** Resolves when they are durable; gives the offset behind the last message of each partition. */
  readonly durable: Promise<Ends>;
}

/** The way from capture to sink, seen from capture. */
export interface Publisher {
  /** Does it keep what it was given while ClickHouse is away? */
  readonly isLog: boolean;
  /** Which Kafka it is; '' without one. */
  cluster(): Promise<string>;
  /** The position of the last watermark that it keeps; undefined where it cannot tell. */
  lastPosition(): Promise<Lsn | undefined>;
  /** Of these tables, the names of those whose topic is not what it was, and why. */
  lost(tables: readonly TableSchema[]): Promise<ReadonlyMap<string, string>>;
  /** Makes the tables' topics exist. */
  prepare(tables: readonly TableSchema[]): Promise<void>;
  /** Where the topics of the prepared tables end now. */
  ends(): Promise<Ends>;
  /** Writes down where the topics end, so that `lost` can tell. */
  rememberEnds(): Promise<void>;
  /** Told of each message that its topic cannot take, before any behind it is sent; without it `publish` rejects. */
  onTooLarge: ((message: OutMessage, error: PipelineError) => Promise<void>) | undefined;
  /** Takes batches in the order of calls; resolves when there is room for more. */
  publish(batch: Batch): Promise<Published>;
  /** Resolves when what the table's topic holds now is in ClickHouse, or the signal aborts. */
  applied(table: TableSchema, signal: AbortSignal): Promise<void>;
  /** To be called when all changes up to the watermark are durable. */
  watermark(watermark: Watermark): Promise<void>;
  close(): Promise<void>;
}

/** Where messages go that could not be applied, with what is known of them in headers. Gives the offset there. */
export interface DeadLetterTopic {
  send(message: InMessage, facts: Readonly<Record<string, string>>): Promise<string>;
  close(): Promise<void>;
}

/** What the transport drives: the sink. */
export interface Receiver {
  /** Resolves when there is room for more; the messages are not applied yet. */
  accept(delivery: Delivery): Promise<void>;
  /**
   * Tells of a watermark; `ends` of tables that are not known here count as reached.
   * @param isWhole `ends` are all that the topics hold, which may be more than the next watermarks tell.
   */
  watermark(watermark: Watermark, isWhole?: boolean): void;
  /** The partitions are given out anew: the watermarks that follow, if any do, begin with one whose ends are whole. */
  reassigned(): void;
}

export interface Rewind {
  /** Sets a table aside: nothing more of it is delivered, and its offsets stay where they are. */
  park(table: string): void;
  /** Delivers a table from these offsets on: partition → offset. */
  again(table: string, from: ReadonlyMap<number, bigint>): void;
}

/** The way from capture to sink, seen from the sink. */
export interface Subscriber {
  /** Delivers until the signal aborts; rejects on a failure. */
  run(receiver: Receiver, signal: AbortSignal): Promise<void>;
  /** The partition's messages before `next` are in ClickHouse. */
  visible(table: string, partition: number, next: bigint): void;
  /** What sinks in other processes made visible: [table, partition, next]. */
  elsewhere(tables: readonly string[]): Promise<readonly (readonly [string, number, bigint])[]>;
  /** Undefined where all tables share one log: it cannot stand still for one of them, nor be read again. */
  readonly rewind: Rewind | undefined;
  /** To be called when all that was accepted is visible, or never will be. */
  close(): Promise<void>;
}
