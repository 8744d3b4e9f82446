import {setTimeout as sleep} from 'node:timers/promises';
import {metrics} from '../observe/metrics.ts';
import {retrying} from '../retry.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {chName, insertRows} from './clickhouse.ts';
import type {Segment} from './segments.ts';
import type {SinkOptions} from './sink-options.ts';

/** Points that wait to be written; older ones go. */
const MOST_WAITING = 10_000;

/** How often what became visible is written down. */
const EVERY_MS = 500;

/** Writes `_freshness`: what became visible when, and how old its commits were by then. */
export class FreshnessLog {
  readonly #options: SinkOptions;
  #rows: Record<string, unknown>[] = [];

  constructor(options: SinkOptions) {
    this.#options = options;
  }

  /** To be called when the segment has just become visible. */
  add({definition, name}: TableSchema, segment: Segment): void {
    const visible = Date.now() * 1000;
    if (this.#rows.length >= MOST_WAITING) this.#rows.splice(0, MOST_WAITING / 2);
    this.#rows.push({
      schema_name: definition.schema,
      table_name: definition.table,
      visible_at: visible,
      oldest_commit: segment.oldestCommit,
      newest_commit: segment.newestCommit,
      rows: segment.count,
      bytes: segment.bytes,
    });
    metrics.lagSeconds.set({table: name}, (visible - segment.newestCommit) / 1e6);
  }

  /** Writes until the signal aborts, and then what is left. */
  async run(signal: AbortSignal): Promise<void> {
    const {client, settings, log} = this.#options;
    const table = chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_freshness');
    for (let last = false; !last; ) {
      await sleep(EVERY_MS, undefined, {signal}).catch(() => {});
      last = signal.aborted;
      const rows = this.#rows;
      this.#rows = [];
      if (last)
        await insertRows(client, table, rows).catch(() => {}); // no more than a point on a graph
      else await retrying('freshness log', () => insertRows(client, table, rows), {log, signal});
    }
  }
}
