import {Batch} from '../kafka/batch.ts';
import {EnvelopeWriter} from '../kafka/envelope.ts';
import type {Transaction} from '../kafka/transaction.ts';
import type {Publisher} from '../kafka/transport.ts';
import type {RowBatch} from '../source/chunk-rows.ts';
import type {Tuple} from '../source/pgoutput.ts';
import {RowEncoder} from '../source/row-encoder.ts';
import type {TableSchema} from '../source/table-schema.ts';

/** Rows of a snapshot on their way into the topics: `r` events, as Debezium writes them. */
export class EnvelopeBatch implements RowBatch {
  readonly #batch = new Batch();
  readonly #publisher: Publisher;
  readonly #writer: EnvelopeWriter;
  /** The snapshot's point, as if one transaction had written all rows there. */
  readonly #point: Transaction;

  constructor(
    table: TableSchema,
    publisher: Publisher,
    {origin, point}: {origin: {prefix: string; database: string}; point: Transaction},
  ) {
    const encoder = new RowEncoder(
      table,
      table.columns.map((_, i) => i),
    );
    this.#publisher = publisher;
    this.#point = point;
    this.#writer = new EnvelopeWriter(encoder, {...origin, snapshot: true});
  }

  get bytes(): number {
    return this.#batch.bytes.length;
  }
  get count(): number {
    return this.#batch.count;
  }

  add(row: Tuple): void {
    const change = {op: 'r', old: null, whole: false, now: row, moved: false, ordinal: 0} as const;
    this.#writer.write(this.#batch, {...change, lsn: this.#point.commitLsn}, this.#point);
  }

  /** Resolves when Kafka has acknowledged them. */
  async write(): Promise<void> {
    await (await this.#publisher.publish(this.#batch)).durable;
    this.#batch.bytes.release();
  }
}
