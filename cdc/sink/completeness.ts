import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import type {Watermark} from '../kafka/transport.ts';
import {retrying} from '../retry.ts';
import {chName, insertRows, rows} from './clickhouse.ts';
import {openLetters} from './dead-letters.ts';
import {nameOf} from './registry.ts';
import type {SinkOptions} from './sink-options.ts';

const EVERY_MS = 500;
/** Watermarks that are waited for at a time, of one table and of all; further ones are joined to the table's newest. */
const LONGEST_QUEUE = 256;
const MOST_WAITING = 32_768;

const Known = z.object({name: z.string(), newest: z.string().nullable(), stamp: z.coerce.number()});

interface Pending {
  position: bigint;
  micros: string;
  readonly ends: Map<number, bigint>;
  /** They are all that the topic held, not what the watermark told. */
  readonly isWhole: boolean;
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
  /** µs; rises also where the clock steps back, as the row with the highest counts. */
  #stamp = 0;
  #epoch = 0;
  #changed = false;
  /** Is it known what an earlier run, or another sink, wrote? */
  #isLoaded = false;

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

  /** The watermarks may be another sink's from now on: what it writes stands. */
  forget(): void {
    this.#latest = undefined;
    this.#pending.clear();
    this.#newest.clear();
    this.#isLoaded = false;
  }

  /** @param isWhole `ends` are all that the topics hold, and the next watermarks may tell of less. */
  add({epoch, position, micros, newest, ends}: Watermark, isWhole: boolean): void {
    if (epoch < this.#epoch) return;
    if (epoch > this.#epoch) this.#pending.clear(); // the server is another one: those will not be reached
    this.#epoch = epoch;
    this.#latest = {position: BigInt(position), micros};
    this.#changed = true;
    for (const table of new Set([...Object.keys(ends), ...Object.keys(newest)])) {
      const reached = Object.entries(ends[table] ?? {}).map(([p, end]) => [Number(p), BigInt(end)] as const);
      const queue = this.#pending.get(table) ?? [];
      this.#pending.set(table, queue);
      // Its topic was made again, or may have been: what was waited for in the old one does not come.
      const told = queue.filter(before => !before.isWhole);
      if (isWhole || reached.some(([p, end]) => told.some(before => (before.ends.get(p) ?? 0n) > end))) {
        queue.length = 0;
        this.#visible.delete(table);
      }
      if (newest[table] !== undefined) this.#newest.set(table, newest[table]);
      const last = queue.at(-1);
      if (last && queue.length >= Math.min(LONGEST_QUEUE, MOST_WAITING / this.#pending.size)) {
        Object.assign(last, {position: BigInt(position), micros});
        for (const [partition, end] of reached) last.ends.set(partition, end);
      } else queue.push({position: BigInt(position), micros, ends: new Map(reached), isWhole});
    }
  }

  /** Writes `_watermarks` until the signal aborts, and once more then. */
  async run(signal: AbortSignal): Promise<void> {
    const {client, settings, log} = this.#options;
    const table = chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_watermarks');
    for (let last = false; !last; ) {
      if (!this.#isLoaded)
        await retrying('watermarks', () => this.#load(table), {log, signal}).catch(error => {
          if (!signal.aborted) throw error;
        });
      await sleep(EVERY_MS, undefined, {signal}).catch(() => {});
      last = signal.aborted;
      await this.#learn().catch(error => log.debug({error: String(error)}, 'offsets of other sinks'));
      if (!this.#changed || !this.#latest || !this.#isLoaded) continue;
      this.#changed = false;
      const complete = await retrying('watermarks', () => this.#rows(), {log, signal}).catch(() => []);
      if (last) await insertRows(client, table, complete).catch(() => {});
      else await retrying('watermarks', () => insertRows(client, table, complete), {log, signal});
    }
  }

  /** Learns of newest commits that an earlier run or another sink knew of, and when it wrote that. */
  async #load(table: string): Promise<void> {
    const name = "concat(schema_name, '.', table_name)";
    const known = await rows(
      this.#options.client,
      Known,
      `SELECT ${name} AS name, toString(toUnixTimestamp64Micro(newest_commit)) AS newest,
         toString(toUnixTimestamp64Micro(updated_at)) AS stamp
       FROM ${table} FINAL`,
    );
    for (const {name, newest, stamp} of known) {
      if (newest !== null && !this.#newest.has(name)) this.#newest.set(name, newest);
      this.#stamp = Math.max(this.#stamp, stamp);
    }
    this.#isLoaded = true;
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
    const {client, settings, registry} = this.#options;
    // What an earlier epoch was complete up to must not be taken for a position of this one.
    if ((await registry.source())?.epoch !== this.#epoch) return [];
    const latest = this.#latest;
    if (!latest) return []; // it was forgotten meanwhile
    this.#stamp = Math.max(this.#stamp + 1, Date.now() * 1000);
    const reached = new Map([...this.#pending.keys()].map(name => [name, this.#completeTo(name)]));
    // Asked for behind what is visible: a table is parked, and a dead letter written, before its offset is passed.
    const [tables, letters] = await Promise.all([registry.tables(), openLetters(client, settings)]);
    return tables.flatMap(row => {
      const name = nameOf(row);
      if (row.state !== 'streaming' || letters.has(name)) return [];
      const complete = reached.get(name) ?? latest;
      return complete === 'unknown'
        ? []
        : [
            {
              schema_name: row.schema_name,
              table_name: row.table_name,
              position: complete.position.toString(),
              complete_up_to: complete.micros,
              newest_commit: this.#newest.get(name) ?? null,
              updated_at: this.#stamp,
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
