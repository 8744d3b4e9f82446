import {z} from 'zod';
import type {Lock} from '../../clickhouse/lock.ts';
import {type MigrationFile, type Names, readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {readSchemaState, refuseMadeOtherwise} from '../../clickhouse/migration-history.ts';
import {asPipelineError} from '../failures.ts';
import type {Log} from '../observe/log.ts';
import {type ClickHouseClient, chName, insertRows, rows} from '../sink/clickhouse.ts';
import {derive, type Touched, Writer} from './derive.ts';
import {bucketParts, markPieces} from './parts.ts';
import {differencesQuery, keysStatement, literalBuckets, type Rollup, readRollups} from './rollup.ts';
import {Runs, type RunsOptions} from './runs.ts';
import {
  adoptBatches,
  completeUpTo,
  makeBatch,
  markSource,
  readSources,
  returnStatement,
  type Source,
  takeMarks,
} from './sources.ts';

export interface RollupsOptions extends Pick<RunsOptions, 'signal' | 'beforeWrite'> {
  readonly client: ClickHouseClient;
  readonly names: Names;
  readonly lock: Pick<Lock, 'number'>;
  readonly log: Log;
  /** Called when all rollups have come to hold all there is, which views wait for. */
  readonly onFilled?: () => Promise<void>;
  /** Default: those of this release. */
  readonly files?: readonly MigrationFile[];
  /** Marks, and buckets, that one statement works at. */
  readonly most?: number;
}

/** A part of a rollup that was compared: its buckets that differed, as literals. */
export interface Checked {
  readonly rollup: string;
  readonly buckets: readonly string[];
}

/** A bucket that changes all the time differs each time that it is looked at; computing it once more does no harm. */
const ROUNDS = 4;
/** They come back to the server as literals. */
const MOST_DIFFERENCES = 2_000;
const LOOK_MS = 5_000;
/** How often it is written down up to when the rollups are complete. */
const TELL_MS = 1_000;
/** When a rollup that could not be computed is tried again. */
const MENDED_MS = 60_000;
/** Memory of a statement grows with it: some 500 bytes for each. */
const MOST = 500_000;

/**
 * Keeps the rollups at what their queries say. A run takes what was written to the sources, finds the buckets that
 * this touches, by every key that their rows ever had, and computes these anew; so a row may come twice, late, or as
 * a deletion of nothing but its key. A run that is broken off is done again, by whoever holds the lock then.
 */
export class Rollups {
  readonly #options: RollupsOptions;
  readonly #files: readonly MigrationFile[];
  /** Tables of the source → columns that are used. */
  readonly #used: ReadonlyMap<string, ReadonlySet<string>>;
  readonly #most: number;
  readonly #runs: Runs;
  readonly #writer: Writer;
  #sources: Source[] = [];
  #rollups: Rollup[] = [];
  /** Is none left out that has a table? */
  #isComplete = false;
  /** What the rollups were filled from, as it was looked at last. */
  #seen = '';
  /** When rollups that miss something are looked for again. */
  #lookAt = 0;
  #tellAt = 0;
  /** Rollup whose query fails → when it is tried again. */
  readonly #broken = new Map<string, number>();

  constructor(options: RollupsOptions) {
    const {client, names, lock, signal, beforeWrite} = options;
    const files = options.files ?? readMigrationFiles();
    this.#options = options;
    this.#files = files.filter(({kind}) => kind === 'rollup');
    this.#used = usedColumns(files);
    this.#most = options.most ?? MOST;
    this.#runs = new Runs({
      client,
      names,
      claim: lock.number,
      ...(signal && {signal}),
      ...(beforeWrite && {beforeWrite}),
    });
    this.#writer = new Writer(client, names, this.#runs);
  }

  #table(name: string): string {
    return chName(this.#options.names.cdc, name);
  }

  /** To be called once, with the lock held. */
  async takeOver(): Promise<void> {
    const {client, names} = this.#options;
    const made = await readRollups(client, names, this.#files);
    const newest = await this.#runs.takeOver(made.map(({table}) => table));
    await this.#writer.takeOver(made, newest);
  }

  /** Brings the rollups up to what was written so far. False where there was nothing to do. */
  async cycle(): Promise<boolean> {
    const {client} = this.#options;
    const filled = await this.#refresh();
    if (this.#rollups.length === 0) return filled;
    // Before marks are taken: what can be seen by then has left its mark.
    const isDue = Date.now() >= this.#tellAt;
    const reached = isDue ? await completeUpTo(client, this.#options.names, this.#sources) : null;
    const taken = await takeMarks(client, this.#sources);
    const marks = taken.reduce((sum, count) => sum + count, 0);
    if (marks === 0) {
      if (isDue) await this.#tell(reached);
      return filled;
    }
    for (const piece of await markPieces(client, this.#sources, taken, this.#most))
      await this.#bringUpToDate(piece, marks);
    for (const [i, {batch}] of this.#sources.entries())
      if (taken[i]! > 0) await this.#runs.write(`TRUNCATE TABLE ${batch}`);
    if (isDue) await this.#tell(reached);
    return true;
  }

  /** Writes down up to when the rollups are complete. While one of them is left out that stands still. */
  async #tell(reached: string | null): Promise<void> {
    if (this.#broken.size > 0 || !this.#isComplete) return;
    await this.#runs.own(); // one that was taken for dead does not know what is under way
    await insertRows(this.#options.client, this.#table('_rollup_watermark'), [
      {one: 0, complete_up_to: reached},
    ]);
    this.#tellAt = Date.now() + TELL_MS;
  }

  /** Works until nothing is left of what was written before. */
  async settle(): Promise<void> {
    while (await this.cycle());
  }

  /** Looks at what is there. Where a source is another one, or a rollup is new, it is filled: true. */
  async #refresh(): Promise<boolean> {
    const {client, names, lock} = this.#options;
    const sources = await readSources(client, names, this.#used, lock.number);
    const marked = (isMarked: (source: {isMarked: boolean}) => boolean): string =>
      JSON.stringify(sources.map(source => [source.name, source.definition, isMarked(source)]));
    const isWhole = this.#rollups.length === this.#files.length;
    if (marked(source => source.isMarked) === this.#seen && (isWhole || Date.now() < this.#lookAt))
      return false;
    this.#seen = '';
    this.#lookAt = Date.now() + LOOK_MS;
    refuseMadeOtherwise(await readSchemaState(client, names), names);
    // What misses a source, itself or by others, waits for it.
    const there = new Set(sources.map(({name}) => name));
    const made = await readRollups(client, names, this.#files);
    this.#rollups = made.filter(({object, rules}) => {
      const isComplete =
        rules.parents.every(({name}) => there.has(name)) && (this.#broken.get(object) ?? 0) <= Date.now();
      if (isComplete) there.add(object);
      return isComplete;
    });
    this.#isComplete = this.#rollups.length === made.length;
    const parents = new Set(this.#rollups.flatMap(({rules}) => rules.parents.map(({name}) => name)));
    const used = sources.filter(({name}) => parents.has(name));
    this.#sources = used;
    const state = await this.#readState();
    const isFilled = (name: string, target: string): boolean =>
      this.#runs.isKnown && state.get(name) === target;
    const stale = new Set<string>();
    for (const source of used) {
      if (!source.isMarked || !isFilled(source.name, source.definition)) {
        stale.add(source.name);
        await this.#saveState(source.name, 'attaching');
      }
      if (source.isMarked) await makeBatch(client, source);
      else await markSource(client, names, source);
    }
    await adoptBatches(client, names, used, lock.number);
    for (const rollup of this.#rollups) {
      const {object, uuid, rules} = rollup;
      if (rules.parents.some(({name}) => stale.has(name)) || !isFilled(object, uuid)) stale.add(object);
    }
    // What was filled behind a run that was broken off cannot be told from what that wrote, and is too much to go on.
    const isAnew = this.#runs.open !== undefined && stale.size > 0;
    const filling = this.#rollups.filter(({object}) => isAnew || stale.has(object));
    for (const {object} of filling) if (state.has(object)) await this.#saveState(object, 'filling');
    // Written down behind the rollups: who finds a source attached finds them filling.
    for (const {name, definition} of used)
      if (stale.has(name)) await this.#saveState(name, 'attached', definition);
    for (const rollup of filling) await this.#attempt(rollup, () => this.#fill(rollup));
    if (filling.every(({object}) => !this.#broken.has(object))) {
      this.#seen = marked(() => true);
      if (isAnew) await this.#runs.run(1, async () => {}); // behind this one nothing is open
    }
    if (filling.length > 0) await this.#options.onFilled?.();
    return filling.length > 0;
  }

  /** Attached sources → what they were filled from; filled rollups → UUID of their table. */
  async #readState(): Promise<Map<string, string>> {
    const found = await rows(
      this.#options.client,
      z.object({name: z.string(), target: z.string()}),
      `SELECT name, target FROM ${this.#table('_rollups')} FINAL WHERE state IN ('attached', 'filled')`,
    );
    return new Map(found.map(({name, target}) => [name, target]));
  }

  async #saveState(name: string, state: string, target = ''): Promise<void> {
    await insertRows(this.#options.client, this.#table('_rollups'), [{name, state, target}]);
  }

  /** Computes all buckets of a rollup, part by part. */
  async #fill(rollup: Rollup): Promise<void> {
    const {log} = this.#options;
    const {object, uuid, isKeyed} = rollup;
    const startedAt = performance.now();
    // Whoever was broken off here may not have come to it.
    if (isKeyed) await this.#runs.write(keysStatement(rollup, '1'));
    const parts = await this.#parts(rollup);
    for (const [i, part] of parts.entries()) {
      await this.#runs.run(0, run => this.#writer.compute(rollup, part, run).then(() => {}));
      log.debug({rollup: object}, `${object}: filled ${i + 1} of ${parts.length} parts`);
    }
    await this.#saveState(object, 'filled', uuid);
    log.info({rollup: object, seconds: (performance.now() - startedAt) / 1000}, `${object} is filled`);
  }

  #parts(rollup: Rollup): Promise<string[]> {
    return bucketParts(this.#options.client, rollup, {
      sources: this.#sources,
      table: name => this.#table(name),
      guard: this.#runs.guard,
      most: this.#most,
    });
  }

  /**
   * Compares what the rollups hold with what their queries say, part by part. Buckets of a part that differ, and still
   * do when what was written meanwhile is in, are told of, and with `repair` computed anew.
   */
  async *check({repair}: {repair: boolean}): AsyncGenerator<Checked> {
    await this.cycle();
    for (const rollup of this.#rollups) {
      for (const part of await this.#parts(rollup)) {
        let buckets = await this.#differences(rollup, part);
        for (let round = 0; buckets.length > 0 && round < ROUNDS; round++) {
          await this.cycle();
          buckets = await this.#differences(rollup, this.#these(rollup, buckets));
        }
        if (buckets.length > 0 && repair) await this.#repair(rollup, this.#these(rollup, buckets));
        yield {rollup: rollup.object, buckets};
      }
    }
  }

  #these(rollup: Rollup, buckets: readonly string[]): string {
    return `${literalBuckets(rollup, buckets)} WHERE ${this.#runs.guard}`;
  }

  async #differences(rollup: Rollup, buckets: string): Promise<string[]> {
    const found = await rows(
      this.#options.client,
      z.object({bucket: z.string()}),
      differencesQuery(rollup, buckets, MOST_DIFFERENCES),
    );
    return found.map(({bucket}) => bucket);
  }

  async #repair(rollup: Rollup, buckets: string): Promise<void> {
    // A row too many may be one that nobody knows the key of.
    if (rollup.isKeyed) await this.#runs.write(keysStatement(rollup, `(${rollup.bucket}) IN (${buckets})`));
    await this.#runs.run(1, run => this.#derive(run, new Map(), new Map([[rollup.object, buckets]])));
  }

  #derive(run: bigint, touched: Map<string, Touched>, more?: ReadonlyMap<string, string>): Promise<void> {
    const attempt = (rollup: Rollup, work: () => Promise<void>): Promise<void> => this.#attempt(rollup, work);
    return derive(
      {rollups: this.#rollups, runs: this.#runs, writer: this.#writer, attempt},
      run,
      touched,
      more,
    );
  }

  #bringUpToDate(piece: ReadonlyMap<Source, string>, marks: number): Promise<void> {
    return this.#runs.run(marks, async run => {
      const touched = new Map<string, Touched>();
      for (const [source, where] of piece) {
        await this.#runs.write(returnStatement(source, where)); // first: what can be seen now is seen by all that follows
        const {key, batch} = source;
        touched.set(source.name, () => `SELECT ${key} FROM ${batch} WHERE ${where} AND ${this.#runs.guard}`);
      }
      await this.#derive(run, touched);
    });
  }

  /** A rollup that cannot be computed, and what is computed from it, are left out for a while; then they are filled anew. */
  async #attempt(rollup: Rollup, work: () => Promise<void>): Promise<void> {
    const {object} = rollup;
    if (this.#isBroken(rollup)) return;
    try {
      await work();
      this.#broken.delete(object);
    } catch (thrown) {
      const {code, reaction, message} = asPipelineError(thrown);
      if (reaction === 'retry' || code === 'internal') throw thrown;
      await this.#runs.own(); // to one that was taken for dead its tables are gone
      this.#options.log.error({code, rollup: object}, `${object} cannot be computed: ${message}`);
      this.#broken.set(object, Date.now() + MENDED_MS);
      await this.#saveState(object, 'filling');
      this.#seen = '';
    }
  }

  #isBroken({object, rules}: Rollup): boolean {
    if ((this.#broken.get(object) ?? 0) > Date.now()) return true;
    return this.#rollups.some(
      other => rules.parents.some(({name}) => name === other.object) && this.#isBroken(other),
    );
  }
}

/** Tables of the source that rollups are computed from, and which of their columns the files read. */
function usedColumns(files: readonly MigrationFile[]): Map<string, Set<string>> {
  const objects = new Set(files.map(({object}) => object));
  const parents = files.flatMap(({rollup}) => rollup?.parents.map(({name}) => name) ?? []);
  const required = files.flatMap(({requires}) => requires);
  return new Map(
    parents
      .filter(name => !objects.has(name))
      .map(table => [table, new Set(required.flatMap(({name, columns}) => (name === table ? columns : [])))]),
  );
}
