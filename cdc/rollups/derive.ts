import {z} from 'zod';
import type {Names, RollupRules} from '../../clickhouse/migration-files.ts';
import {imagesTable} from '../../clickhouse/rollup-tables.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {imagesStatements, incrementOf, keysStatement, type Rollup, writeStatement} from './rollup.ts';
import type {Runs} from './runs.ts';

/** Writes rows of rollups for one holder of the lock. */
export class Writer {
  readonly #client: ClickHouseClient;
  readonly #names: Names;
  readonly #runs: Runs;
  /** Table of images → the run whose images are in it. */
  readonly #images = new Map<string, bigint>();

  constructor(client: ClickHouseClient, names: Names, runs: Runs) {
    this.#client = client;
    this.#names = names;
    this.#runs = runs;
  }

  /** Throws away images of earlier holders' runs. Those above `newest` belong to whoever has taken over since. */
  async takeOver(rollups: readonly Rollup[], newest: bigint): Promise<void> {
    const tables = rollups.flatMap(({object, images}) => (images ? [imagesTable(object)] : []));
    const found = await rows(
      this.#client,
      z.object({table: z.string(), partition: z.string()}),
      `SELECT DISTINCT table, partition FROM system.parts WHERE active AND database = {cdc: String}
       AND table IN {tables: Array(String)} AND toUInt64OrZero(partition) <= {newest: UInt64}`,
      {cdc: this.#names.cdc, tables, newest: newest.toString()},
    );
    for (const {table, partition} of found) await this.#dropImages(chName(this.#names.cdc, table), partition);
  }

  async #dropImages(table: string, run: bigint | string): Promise<void> {
    await this.#runs.write(`ALTER TABLE ${table} DROP PARTITION ${run}`);
  }

  /**
   * Gives how many rows were written.
   * @param query of what the buckets are to hold, where not that of the rollup's file
   */
  async compute(rollup: Rollup, buckets: string, run: bigint, query?: string): Promise<number> {
    const written = await this.#runs.write(writeStatement(rollup, buckets, run, query));
    if (rollup.isKeyed && written > 0) await this.#runs.write(keysStatement(rollup, `_run = ${run}`));
    return written;
  }

  /** The same by images, of which those of the run before are thrown away. */
  async computeImages(rollup: Rollup, buckets: string, run: bigint): Promise<number> {
    const {table} = rollup.images!;
    const old = this.#images.get(table);
    if (old !== undefined) await this.#dropImages(table, old);
    this.#images.set(table, run);
    const [images, rows] = imagesStatements(rollup, buckets, run);
    return (await this.#runs.write(images)) > 0 ? this.#runs.write(rows) : 0;
  }
}

/** Of rows that were written, a query of the buckets that they touch. */
export type Touched = (expressions: readonly string[]) => string;

export interface Deriving {
  /** Each after those that it is computed from. */
  readonly rollups: readonly Rollup[];
  readonly runs: Runs;
  readonly writer: Writer;
  /** Does the work, unless the rollup is left out. */
  attempt(rollup: Rollup, work: () => Promise<void>): Promise<void>;
}

/**
 * Computes what is touched, and what that touches in turn.
 * @param touched sources, and rollups written by this run → a query of the buckets that their rows touch
 * @param more rollup → a query of buckets beside those
 */
export async function derive(
  {rollups, runs, writer, attempt}: Deriving,
  run: bigint,
  touched: Map<string, Touched>,
  more: ReadonlyMap<string, string> = new Map(),
): Promise<void> {
  const first = runs.open ?? run;
  const images = (name: string): string =>
    `${rollups.find(({object}) => object === name)!.images!.query} WHERE _run = ${run} AND ${runs.guard}`;
  const goesOn = ({object, table}: Rollup): void => {
    touched.set(
      object,
      expressions =>
        `SELECT ${expressions.join(', ')} FROM ${table} WHERE _run >= ${first} AND ${runs.guard}`,
    );
  };
  const bringUp = async (
    rollup: Rollup,
    parents: RollupRules['parents'],
    isWhole: boolean,
  ): Promise<void> => {
    const {object, isKeyed} = rollup;
    // What a run that was broken off wrote is not written again, and must go on all the same.
    if (first < run) goesOn(rollup);
    const dirty = [
      ...parents.flatMap(({name, expressions}) => touched.get(name)?.(expressions) ?? []),
      ...(more.has(object) ? [more.get(object)!] : []),
    ];
    await attempt(rollup, async () => {
      if (first < run && isKeyed) await runs.write(keysStatement(rollup, `_run >= ${first}`));
      if (dirty.length === 0) return;
      const buckets = dirty.join(' UNION ALL ');
      const increment = isWhole ? incrementOf(rollup, buckets, images) : undefined;
      const written = rollup.images
        ? await writer.computeImages(rollup, buckets, run)
        : await writer.compute(rollup, buckets, run, increment);
      if (written > 0) goesOn(rollup);
    });
  };
  // Each behind those that it is computed from, otherwise at once: most of a small statement's time is not its rows.
  const inOrder = async (
    which: readonly Rollup[],
    isAwaited: (parent: string) => boolean,
    isWhole: boolean,
  ): Promise<void> => {
    const done = new Map<string, Promise<void>>();
    for (const rollup of which) {
      const parents = rollup.rules.parents.filter(({name}) => isAwaited(name));
      const awaited = Promise.all(parents.map(({name}) => done.get(name)));
      done.set(
        rollup.object,
        awaited.then(() => bringUp(rollup, parents, isWhole)),
      );
    }
    // No statement may still run when it is told what has failed.
    const results = await Promise.allSettled(done.values());
    const failed = results.find(result => result.status === 'rejected');
    if (failed) throw failed.reason;
  };
  // Behind a run that was broken off, images tell less than what changed; and what is repaired may be right elsewhere.
  if (first < run || more.size > 0) return inOrder(rollups, () => true, false);
  // What is compared seldom has something to tell: others do not wait for it, and are computed again where it has.
  const seldom = new Set(
    rollups.filter(rollup => rollup.isCompared && !rollup.images).map(({object}) => object),
  );
  await inOrder(rollups, parent => !seldom.has(parent), true);
  const again: Rollup[] = [];
  for (const rollup of rollups) {
    const isTouched = (parent: string): boolean =>
      (seldom.has(parent) && touched.has(parent)) || again.some(({object}) => object === parent);
    if (rollup.rules.parents.some(({name}) => isTouched(name))) again.push(rollup);
  }
  // As a whole: what was added once must not be added again.
  await inOrder(again, () => true, false);
}
