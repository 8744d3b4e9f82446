import type {RowBatch} from '../source/chunk-rows.ts';
import type {Tuple} from '../source/pgoutput.ts';
import {RowEncoder, technicalColumns} from '../source/row-encoder.ts';
import {Bytes} from '../types/bytes.ts';
import {insertJson} from './clickhouse.ts';
import {splitObject} from './row-json.ts';
import type {SpecialRow} from './segments.ts';
import {type ApplyContext, applySpecial} from './table-writer.ts';
import {insertStatement} from './target.ts';

/** When a snapshot's rows are of. */
export interface SnapshotPoint {
  readonly version: bigint;
  /** µs since 1970-01-01 UTC */
  readonly commitMicros: bigint;
}

/** Rows of a snapshot on their way to ClickHouse, by the same way as those of the stream. */
export class SnapshotBatch implements RowBatch {
  readonly #context: ApplyContext;
  readonly #again: (write: () => Promise<void>) => Promise<void>;
  readonly #version: bigint;
  readonly #technical: string;
  readonly #encoder: RowEncoder;
  /** Rows as JSON objects with their technical columns, a line each. */
  readonly #rows = new Bytes(1 << 16);
  readonly #special: SpecialRow[] = [];
  #specialBytes = 0;
  count = 0;

  /** @param again runs a write until it succeeds. */
  constructor(
    context: ApplyContext,
    {version, commitMicros}: SnapshotPoint,
    again = (write: () => Promise<void>): Promise<void> => write(),
  ) {
    this.#context = context;
    this.#again = again;
    this.#version = version;
    this.#technical = technicalColumns(version, false, commitMicros);
    this.#encoder = new RowEncoder(
      context.table,
      context.table.columns.map((_, i) => i),
    );
  }

  get bytes(): number {
    return this.#rows.length + this.#specialBytes;
  }

  add(row: Tuple): void {
    const out = this.#rows;
    const encoder = this.#encoder;
    const start = out.length;
    encoder.image(out, row, false, null);
    this.count += 1;
    const {rejects} = encoder;
    if (rejects.length === 0) {
      out.length -= 1; // the closing brace: the technical columns go on
      out.ascii(`,${this.#technical}\n`);
      return;
    }
    this.#specialBytes += 2 * (out.length - start);
    const members = splitObject(Buffer.from(out.view(start)));
    out.length = start;
    encoder.key(out, row, null);
    const key = out.view(start).toString('utf8');
    out.length = start;
    this.#special.push({
      key,
      keyText: '',
      unchanged: [],
      moved: false,
      xid: 0,
      version: this.#version,
      technical: this.#technical,
      rejects,
      members,
    });
  }

  write(): Promise<void> {
    return this.#again(() => this.#write());
  }

  async #write(): Promise<void> {
    const {client, settings, table} = this.#context;
    const statement = insertStatement(settings, table);
    if (this.#rows.length > 0) await insertJson(client, statement, this.#rows.view());
    if (this.#special.length > 0) await applySpecial(this.#context, statement, this.#special);
  }
}
