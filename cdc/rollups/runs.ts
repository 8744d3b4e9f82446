import {randomUUID} from 'node:crypto';
import {z} from 'zod';
import {newestClaim} from '../../clickhouse/lock.ts';
import type {Names} from '../../clickhouse/migration-files.ts';
import {PipelineError} from '../failures.ts';
import {failpoint} from '../observe/failpoint.ts';
import {
  asTargetError,
  type ClickHouseClient,
  chLiteral,
  chName,
  insertRows,
  rows,
} from '../sink/clickhouse.ts';

const SETTINGS = {
  /** Behind the sink's inserts, before those who read views (`clickhouse/access.ts`), where ClickHouse may set it. */
  os_thread_priority: '5',
  join_use_nulls: 0,
  /** Rows of other buckets are left out before versions are compared; ClickHouse does so by columns of the key alone. */
  optimize_move_to_prewhere_if_final: 1,
  /** Machine code is made anew for each run's number, and costs more than the rows. */
  compile_expressions: 0,
  compile_aggregate_expressions: 0,
  compile_sort_description: 0,
} as const;

export interface RunsOptions {
  readonly client: ClickHouseClient;
  readonly names: Names;
  /** Of the lock; a higher one than this belongs to somebody else. */
  readonly claim: bigint;
  /** A statement that it breaks off is done again by the next one who holds the lock. */
  readonly signal?: AbortSignal;
  /** Called before each statement that writes; tests break off here. */
  readonly beforeWrite?: () => void | Promise<void>;
}

/**
 * Numbers the runs, and writes for them. What is written under a claim that is not the highest any more is nothing:
 * queries of what to write end with `guard`, and who takes over ends the statements that had looked before.
 */
export class Runs {
  readonly #options: RunsOptions;
  readonly #ledger: string;
  /** A condition: is this claim still the highest? */
  readonly guard: string;
  #last = 0n;
  #open: bigint | undefined;
  #isKnown = false;

  constructor(options: RunsOptions) {
    const {names, claim} = options;
    this.#options = options;
    this.#ledger = chName(names.cdc, '_rollup_runs');
    this.guard = `${newestClaim(names, 'rollups')} = ${claim}`;
  }

  /**
   * The lowest run that was broken off, or is under way: from it on, rows were written that nothing may have been
   * computed from, and whose keys may not be written down.
   */
  get open(): bigint | undefined {
    return this.#open;
  }
  /** False where the ledger has forgotten what happened: then nothing that was written can be relied on. */
  get isKnown(): boolean {
    return this.#isKnown;
  }

  /**
   * To be called once, with the lock held: ends what an earlier holder may still be doing.
   * @param tables with a column `_run`: numbers go on above theirs, as the ledger keeps those of a month alone
   * @returns the highest number that an earlier holder had
   */
  async takeOver(tables: readonly string[]): Promise<bigint> {
    const {client} = this.#options;
    const found = await rows(
      client,
      z.object({query_id: z.string()}),
      'SELECT query_id FROM system.processes WHERE startsWith(query_id, {prefix: String})',
      {prefix: this.#queryPrefix},
    );
    for (const {query_id} of found)
      await client.command({query: `KILL QUERY WHERE query_id = ${chLiteral(query_id)} SYNC`});
    const newest = ['max(run)', ...tables.map(table => `(SELECT max(_run) FROM ${table})`)].join(', ');
    const [known] = await rows(
      client,
      z.object({newest: z.string(), known: z.string(), open: z.string(), events: z.string()}),
      `WITH (SELECT maxIf(run, event = 'end' AND marks > 0) FROM ${this.#ledger}) AS ended
       SELECT toString(greatest(0, ${newest})) AS newest, toString(max(run)) AS known, toString(count()) AS events,
         toString(minIf(run, event = 'begin' AND marks > 0 AND run > ended)) AS open FROM ${this.#ledger}`,
    );
    this.#last = BigInt(known!.newest);
    this.#open = BigInt(known!.open) || undefined;
    // One that was restored from before its tables does not know what they hold either.
    this.#isKnown = known!.events !== '0' && this.#last <= BigInt(known!.known);
    return this.#last;
  }

  /** One for all holders of the lock. */
  get #queryPrefix(): string {
    return `freshet-rollups-${this.#options.names.cdc}-`;
  }

  /**
   * @param marks how many changed rows it works at; 0 for one that fills, from which nothing follows
   */
  async run(marks: number, work: (run: bigint) => Promise<void>): Promise<void> {
    this.#last += 1n;
    if (marks > 0) this.#open ??= this.#last;
    await this.#tell('begin', marks);
    await work(this.#last);
    await this.own(); // nothing may be thrown away otherwise
    await this.#tell('end', marks);
    this.#isKnown = true;
    if (marks > 0) this.#open = undefined;
  }

  async #tell(event: 'begin' | 'end', marks: number): Promise<void> {
    await this.#options.beforeWrite?.();
    const [run, claim] = [this.#last.toString(), this.#options.claim.toString()];
    await insertRows(this.#options.client, this.#ledger, [{run, event, claim, marks}]);
  }

  /** Throws `ch.rollups_taken` where somebody else has taken the lock. */
  async own(): Promise<void> {
    const sql = `SELECT ${this.guard} AS own`;
    const [found] = await rows(this.#options.client, z.object({own: z.number()}), sql);
    if (found?.own !== 1)
      throw new PipelineError('ch.rollups_taken', 'another process keeps the rollups now');
  }

  /** Gives how many rows were written. */
  async write(query: string): Promise<number> {
    const {client, signal, beforeWrite} = this.#options;
    failpoint('rollups.before_write');
    await beforeWrite?.();
    try {
      const query_id = `${this.#queryPrefix}${randomUUID()}`;
      const {summary} = await client.command({
        query,
        query_id,
        clickhouse_settings: SETTINGS,
        ...(signal && {abort_signal: signal}),
      });
      return Number(summary?.written_rows ?? 0);
    } catch (error) {
      throw asTargetError(error);
    }
  }
}
