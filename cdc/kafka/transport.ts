import type {TableSchema} from '../source/table-schema.ts';
import type {Delivery, Ends, OutMessage} from './message.ts';

/** A position up to which every change is durable, and where in the topics the last changes before it lie. */
export interface Watermark {
  /** LSN, decimal */
  readonly position: string;
  /** µs since 1970-01-01 UTC: what was committed before this time is before the position. */
  readonly micros: string;
  /** Newest commit (µs) of each table that changed since the last watermark. */
  readonly newest: Readonly<Record<string, string>>;
  readonly ends: Ends;
}

/** The way from capture to sink, seen from capture. Calls are made one at a time. */
export interface Publisher {
  /** Of these tables, the names of those whose topic does not exist. */
  missing(tables: readonly TableSchema[]): Promise<string[]>;
  /** Makes the tables' topics exist; afterwards `partitions` answers for them. */
  prepare(tables: readonly TableSchema[]): Promise<void>;
  partitions(table: string): number;
  /** Where the topics of the prepared tables end now. */
  ends(): Promise<Ends>;
  /** Resolves when the messages are durable; gives the offset behind the last message of each partition. */
  publish(messages: readonly OutMessage[]): Promise<Ends>;
  /** To be called when all changes up to the watermark are durable. */
  watermark(watermark: Watermark): Promise<void>;
  close(): Promise<void>;
}

/** What the transport drives: the sink. */
export interface Receiver {
  /** Resolves when there is room for more; the messages are not applied yet. */
  accept(delivery: Delivery): Promise<void>;
  /** Tells of a watermark; `ends` of tables that are not known here count as reached. */
  watermark(watermark: Watermark): void;
}

/** The way from capture to sink, seen from the sink. */
export interface Subscriber {
  /** Delivers until the signal aborts; rejects on a failure. */
  run(receiver: Receiver, signal: AbortSignal): Promise<void>;
  /** The partition's messages before `next` are in ClickHouse. */
  visible(table: string, partition: number, next: bigint): void;
  /** What sinks in other processes made visible: [table, partition, next]. */
  elsewhere(tables: readonly string[]): Promise<readonly (readonly [string, number, bigint])[]>;
  /**
   * Sets a table aside: nothing more of it is delivered, and its offsets stay where they are. False where that
   * cannot be done without holding up all tables.
   */
  park(table: string): boolean;
  /** To be called when all that was accepted is visible, or never will be. */
  close(): Promise<void>;
}
