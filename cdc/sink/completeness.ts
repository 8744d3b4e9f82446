import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import type {Watermark} from '../kafka/transport.ts';
import {retrying} from '../retry.ts';
import {chName, insertRows, rows} from './clickhouse.ts';
import {nameOf} from './registry.ts';
import type {SinkOptions} from './sink-options.ts';

const EVERY_MS = 500;
/** Watermarks of one table that are waited for at a time; further ones are joined to the newest. */
const LONGEST_QUEUE = 256;

const Known = z.object({name: z.string(), newest: z.string()});

interface Pending {
  position: bigint;
  micros: string;
  readonly ends: Map<number, bigint>;
}

/**
 * Follows for each table up to which watermark it is complete: the newest one whose ends the visible offsets have
 * reached. Offsets that other sinks made visible come by the subscriber (`elsewhere`).
 */
export class Completeness {
  readonly #options: SinkOptions;
  readonly #visible = new Map<string, Map<number, bigint>>();
  readonly #pending = new Map<string, Pending[]>();
  readonly #newest = new Map<string, string>();
  #latest: {position: bigint; micros: string} | undefined;
  #changed = false;

  constructor(options: SinkOptions) {
    this.#options = options;
  }

  visible(table: string, partition: number, next: bigint): void {
    const partitions = this.#visible.get(table) ?? new Map<number, bigint>();
    const before = partitions.get(partition) ?? 0n;
    if (next > before) partitions.set(partition, next);
    this.#visible.set(table, partitions);
    this.#changed = true;
  }

  add({position, micros, newest, ends}: Watermark): void {
    this.#latest = {position: BigInt(position), micros};
    this.#changed = true;
    for (const table of new Set([...Object.keys(ends), ...Object.keys(newest)])) {
      const queue = this.#pending.get(table) ?? [];
      this.#pending.set(table, queue);
      if (newest[table] !== undefined) this.#newest.set(table, newest[table]);
      const reached = Object.entries(ends[table] ?? {}).map(([p, end]) => [Number(p), BigInt(end)] as const);
      const last = queue.at(-1);
      if (last && queue.length >= LONGEST_QUEUE) {
        Object.assign(last, {position: BigInt(position), micros});
        for (const [partition, end] of reached) last.ends.set(partition, end);
      } else queue.push({position: BigInt(position), micros, ends: new Map(reached)});
    }
  }

  /** Writes `_watermarks` until the signal aborts, and once more then. */
  async run(signal: AbortSignal): Promise<void> {
    const {client, settings, log} = this.#options;
    const table = chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_watermarks');
    for (const {name, newest} of await retrying('watermarks', () => this.#known(table), {log, signal})) {
      if (!this.#newest.has(name)) this.#newest.set(name, newest);
    }
    for (let last = false; !last; ) {
      await sleep(EVERY_MS, undefined, {signal}).catch(() => {});
      last = signal.aborted;
      await this.#learn().catch(error => log.debug({error: String(error)}, 'offsets of other sinks'));
      if (!this.#changed || !this.#latest) continue;
      this.#changed = false;
      const complete = await retrying('watermarks', () => this.#rows(), {log, signal}).catch(() => []);
      if (last) await insertRows(client, table, complete).catch(() => {});
      else await retrying('watermarks', () => insertRows(client, table, complete), {log, signal});
    }
  }

  /** Newest commits that an earlier run knew of. */
  #known(table: string): Promise<z.infer<typeof Known>[]> {
    const name = "concat(schema_name, '.', table_name)";
    return rows(
      this.#options.client,
      Known,
      `SELECT ${name} AS name, toString(toUnixTimestamp64Micro(assumeNotNull(newest_commit))) AS newest
       FROM ${table} FINAL WHERE newest_commit IS NOT NULL`,
    );
  }

  /** Asks for what other sinks of the group made visible, where something is waited for. */
  async #learn(): Promise<void> {
    const waiting = [...this.#pending].filter(([, queue]) => queue.length > 0).map(([table]) => table);
    if (waiting.length === 0) return;
    for (const [table, partition, next] of await this.#options.subscriber.elsewhere(waiting)) {
      this.visible(table, partition, next);
    }
  }

  async #rows(): Promise<Record<string, unknown>[]> {
    const latest = this.#latest!;
    const now = Date.now() * 1000;
    const tables = await this.#options.registry.tables();
    return tables.flatMap(row => {
      const name = nameOf(row);
      if (row.state !== 'streaming') return [];
      const complete = this.#completeTo(name) ?? latest;
      return complete === 'unknown'
        ? []
        : [
            {
              schema_name: row.schema_name,
              table_name: row.table_name,
              position: complete.position.toString(),
              complete_up_to: complete.micros,
              newest_commit: this.#newest.get(name) ?? null,
              updated_at: now,
            },
          ];
    });
  }

  /** The newest watermark that is reached where others wait; undefined where none waits. */
  #completeTo(table: string): {position: bigint; micros: string} | 'unknown' | undefined {
    const queue = this.#pending.get(table) ?? [];
    const visible = this.#visible.get(table);
    let reached: Pending | undefined;
    for (let first = queue[0]; first; first = queue[0]) {
      if ([...first.ends].some(([partition, end]) => (visible?.get(partition) ?? 0n) < end)) break;
      reached = queue.shift();
    }
    if (queue.length === 0) return undefined;
    return reached ?? 'unknown';
  }
}
