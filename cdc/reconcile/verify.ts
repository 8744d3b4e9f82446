import type {ClientBase} from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, rows} from '../sink/clickhouse.ts';
import {Registry} from '../sink/registry.ts';
import {targetTable} from '../sink/target.ts';
import {clientConfig, liftTimeLimits, readServerVersion, withClient} from '../source/postgres.ts';
import {problemLines} from '../source/preflight.ts';
import {compareTables} from '../source/schema-change.ts';
import {type CapturedTable, planTables} from '../source/tables.ts';
import type {TableProgress} from './table-check.ts';
import {NO_PASS, type TableVerdict} from './verdict.ts';
import {verifyTable} from './verify-table.ts';

export {type Difference, exitCode, type TableVerdict} from './verdict.ts';

export type VerifyProgress = TableProgress & {readonly table: string};

export interface VerifyOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  /** How long rows may take to settle after they were first read, in ms. */
  readonly timeoutMs?: number;
  /** Read keys that differ again, and write them. */
  readonly repair?: boolean;
  readonly onTable?: (verdict: TableVerdict) => void;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

const TIMEOUT_MS = 60_000;

/**
 * Compares every captured table in PostgreSQL with ClickHouse's current rows, value for value, also while changes
 * stream. Without `repair` it only reads, but for the messages that mark positions in the stream. Throws
 * `pg.preflight` where a table that should be captured cannot be, and what the two servers throw.
 */
export async function verify(options: VerifyOptions): Promise<TableVerdict[]> {
  const {client, settings, onTable} = options;
  return withClient({...clientConfig(settings), silenceMs: 0}, async postgres => {
    await liftTimeLimits(postgres);
    await postgres.query('SET lock_timeout = 0');
    const registry = new Registry(client, settings);
    const {tables, problems} = await capturedTables(postgres, settings);
    const shown = await registry.shownTables();
    const verdicts: TableVerdict[] = [];
    const add = (verdict: TableVerdict): void => {
      onTable?.(verdict);
      verdicts.push(verdict);
    };
    for (const {table = '', message} of problems) add(unread(table, message));
    for (const now of tables) add(await verifyShown(options, postgres, registry, {now, shown}));
    return verdicts;
  });
}

/** Compares one table with what its view shows. */
async function verifyShown(
  options: VerifyOptions,
  postgres: ClientBase,
  registry: Registry,
  {now, shown: first}: {now: CapturedTable; shown: readonly CapturedTable[]},
): Promise<TableVerdict> {
  const {client, settings} = options;
  const {name} = now.schema;
  for (let attempt = 0; ; attempt++) {
    const shown = attempt === 0 ? first : await registry.shownTables();
    const source = await registry.source();
    const table = shown.find(({schema}) => schema.name === name);
    const same = table && compareTables(table, now, {rewritten: false, late: false}).kind === 'none';
    if (!same) {
      if (attempt === 0) continue; // it may have changed since this run began
      return unread(
        name,
        table
          ? 'its definition changed, and the change is not visible yet'
          : 'the pipeline has not read it yet',
      );
    }
    try {
      return await verifyTable({
        client,
        settings,
        postgres,
        table: {...table, estimatedRows: now.estimatedRows},
        target: targetTable(settings, table.schema),
        epoch: source?.epoch ?? 0,
        storedRows: await storedRows(options, table),
        timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
        repair: options.repair ?? false,
        onProgress: progress => options.onProgress?.({table: name, ...progress}),
      });
    } catch (error) {
      // Its target was replaced meanwhile: the table was read into another one.
      const replaced = error instanceof PipelineError && error.code === 'ch.not_set_up';
      if (!replaced || attempt === ATTEMPTS) throw error;
    }
  }
}

const ATTEMPTS = 3;

/** The tables as the source has them now, and what keeps others from being captured. */
async function capturedTables(postgres: ClientBase, settings: Settings) {
  const {captured, problems, createPublication} = await planTables(
    postgres,
    settings,
    await readServerVersion(postgres),
  );
  if (createPublication) {
    throw new PipelineError('pg.preflight', `publication ${settings.FRESHET_PUBLICATION} does not exist`);
  }
  const general = problems.filter(({table}) => table === undefined);
  if (general.length > 0) throw new PipelineError('pg.preflight', `\n${problemLines(general).join('\n')}`);
  return {tables: captured, problems};
}

/** All versions of all rows: ClickHouse knows without reading. */
async function storedRows({client, settings}: VerifyOptions, {schema}: CapturedTable): Promise<number> {
  const found = await rows(
    client,
    z.object({stored: z.coerce.number()}),
    `SELECT count() AS stored FROM ${targetTable(settings, schema)}`,
  );
  return found[0]!.stored;
}

const unread = (table: string, reason: string): TableVerdict => ({
  table,
  verdict: 'unsettled',
  rows: {postgres: 0n, clickhouse: 0n},
  checksum: {postgres: '0', clickhouse: '0'},
  passes: {postgres: NO_PASS, clickhouse: NO_PASS},
  rounds: 0,
  seconds: 0,
  found: 0,
  differences: [],
  reason,
  repair: undefined,
});
