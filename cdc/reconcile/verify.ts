import type {ClientBase} from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, rows} from '../sink/clickhouse.ts';
import {Registry} from '../sink/registry.ts';
import {targetTable} from '../sink/target.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {problemLines} from '../source/preflight.ts';
import {type CapturedTable, planTables} from '../source/tables.ts';
import type {TableVerdict} from './verdict.ts';
import {verifyTable} from './verify-table.ts';

export {type Difference, exitCode, type TableVerdict} from './verdict.ts';

export interface VerifyProgress {
  readonly table: string;
  /** What is being compared: buckets of keys, or the keys of buckets that differ. */
  readonly level: 'bucket' | 'key';
  readonly round: number;
  /** How many of them are not known to be equal yet. */
  readonly pending: number;
}

export interface VerifyOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  /** How long each table may take to settle after it was first read, in ms. */
  readonly timeoutMs?: number;
  readonly onTable?: (verdict: TableVerdict) => void;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

const TIMEOUT_MS = 60_000;

/**
 * Compares every captured table in PostgreSQL with ClickHouse's current rows, value for value, also while changes
 * stream. It only reads, but for the messages that mark positions in the stream. Throws `pg.preflight` where a table
 * that should be captured cannot be, and what the two servers throw.
 */
export async function verify(options: VerifyOptions): Promise<TableVerdict[]> {
  const {client, settings, onTable} = options;
  return withClient(clientConfig(settings), async postgres => {
    await postgres.query('SET statement_timeout = 0; SET lock_timeout = 0');
    const tables = await capturedTables(postgres, settings);
    const registry = new Registry(client, settings);
    const [known, source] = await Promise.all([registry.tables(), registry.source()]);
    const verdicts: TableVerdict[] = [];
    for (const table of tables) {
      const {definition, name} = table.schema;
      const isKnown = known.some(
        row => row.schema_name === definition.schema && row.table_name === definition.table,
      );
      const verdict = isKnown
        ? await verifyTable({
            client,
            settings,
            postgres,
            table,
            epoch: source?.epoch ?? 0,
            storedRows: await storedRows(options, table),
            timeoutMs: options.timeoutMs ?? TIMEOUT_MS,
            onProgress: progress => options.onProgress?.({table: name, ...progress}),
          })
        : unknownTable(name);
      onTable?.(verdict);
      verdicts.push(verdict);
    }
    return verdicts;
  });
}

async function capturedTables(postgres: ClientBase, settings: Settings): Promise<readonly CapturedTable[]> {
  const {rows: found} = await postgres.query<{version: number}>(
    "SELECT current_setting('server_version_num')::int AS version",
  );
  const {captured, problems, createPublication} = await planTables(postgres, settings, found[0]!.version);
  if (createPublication) {
    throw new PipelineError('pg.preflight', `publication ${settings.FRESHET_PUBLICATION} does not exist`);
  }
  if (problems.length > 0) throw new PipelineError('pg.preflight', `\n${problemLines(problems).join('\n')}`);
  return captured;
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

const unknownTable = (table: string): TableVerdict => ({
  table,
  verdict: 'unsettled',
  rows: {postgres: 0n, clickhouse: 0n},
  checksum: {postgres: '0', clickhouse: '0'},
  rounds: 0,
  seconds: 0,
  differences: [],
  reason: 'the pipeline has not read it yet',
});
