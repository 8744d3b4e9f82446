import {randomUUID} from 'node:crypto';
import {z} from 'zod';
import {newestClaim} from '../../clickhouse/lock.ts';
import type {Names} from '../../clickhouse/migration-files.ts';
import {PipelineError} from '../failures.ts';
import {
  asTargetError,
  type ClickHouseClient,
  chLiteral,
  chName,
  insertRows,
  rows,
} from '../sink/clickhouse.ts';

/** Behind the sink's inserts, before those who read views (`clickhouse/access.ts`), where ClickHouse may set it. */
const NICE = '5';

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
  #completed = 0n;

  constructor(options: RunsOptions) {
    const {names, claim} = options;
    this.#options = options;
    this.#ledger = chName(names.cdc, '_rollup_runs');
    this.guard = `${newestClaim(names, 'rollups')} = ${claim}`;
  }

  /** Runs above this one were broken off, or are not known to have ended. */
  get completed(): bigint {
    return this.#completed;
  }
  get last(): bigint {
    return this.#last;
  }

  /**
   * To be called once, with the lock held: ends what an earlier holder may still be doing.
   * @param tables with a column `_run`: numbers go on above theirs, as the ledger keeps those of a week alone
   */
  async takeOver(tables: readonly string[]): Promise<void> {
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
      z.object({newest: z.string(), completed: z.string()}),
      `SELECT toString(greatest(0, ${newest})) AS newest, toString(maxIf(run, event = 'end')) AS completed FROM ${this.#ledger}`,
    );
    this.#last = BigInt(known!.newest);
    this.#completed = BigInt(known!.completed);
  }

  /** One for all holders of the lock. */
  get #queryPrefix(): string {
    return `freshet-rollups-${this.#options.names.cdc}-`;
  }

  /** What runs that were broken off left behind is mended. */
  recovered(): void {
    this.#completed = this.#last;
  }

  /**
   * @param marks how many changed rows it works at
   */
  async run(marks: number, work: (run: bigint) => Promise<void>): Promise<void> {
    this.#last += 1n;
    await this.#tell('begin', marks);
    await work(this.#last);
    await this.own(); // nothing may be thrown away otherwise
    await this.#tell('end', marks);
    this.#completed = this.#last;
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
    await beforeWrite?.();
    try {
      const query_id = `${this.#queryPrefix}${randomUUID()}`;
      const {summary} = await client.command({
        query,
        query_id,
        clickhouse_settings: {os_thread_priority: NICE},
        ...(signal && {abort_signal: signal}),
      });
      return Number(summary?.written_rows ?? 0);
    } catch (error) {
      throw asTargetError(error);
    }
  }
}
