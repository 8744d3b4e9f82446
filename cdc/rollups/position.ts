import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {readMigrationFiles} from '../../clickhouse/migration-files.ts';
import {databasesOf} from '../context.ts';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, rows} from '../sink/clickhouse.ts';
import {readRollups} from './rollup.ts';
import {BATCH, MARKS} from './sources.ts';

const POLL_MS = 50;

/** How far the rollups are. */
export interface RollupsPosition {
  /** Those that are there. */
  readonly rollups: readonly string[];
  /** Those of them that are being filled, so that nothing new is in them. */
  readonly filling: readonly string[];
  /** Rows that were written to their sources, and are in none yet. */
  readonly behind: number;
}

/** How far the rollups are; none where nothing is set up. */
export async function rollupsPosition(
  client: ClickHouseClient,
  settings: Settings,
  files = readMigrationFiles(),
): Promise<RollupsPosition> {
  const names = databasesOf(settings);
  const rollups = (await readRollups(client, names, files)).map(({object}) => object);
  if (rollups.length === 0) return {rollups, filling: [], behind: 0};
  const filled = await rows(
    client,
    z.object({name: z.string()}),
    "SELECT name FROM {cdc: Identifier}._rollups FINAL WHERE state = 'filled'",
    {cdc: names.cdc},
  );
  const full = new Set(filled.map(({name}) => name));
  const rowsOf = async (prefix: string): Promise<number> => {
    const [found] = await rows(
      client,
      z.object({n: z.coerce.number()}),
      'SELECT sum(total_rows) AS n FROM system.tables WHERE database = {cdc: String} AND startsWith(name, {prefix: String})',
      {cdc: names.cdc, prefix},
    );
    return found?.n ?? 0;
  };
  // Marks go from the one into the other, so those are counted first.
  const behind = (await rowsOf(MARKS)) + (await rowsOf(BATCH));
  return {rollups, filling: rollups.filter(name => !full.has(name)), behind};
}

/**
 * Resolves when the rollups are full and hold all that is written to their sources. Throws `ch.unavailable` after
 * `timeoutMs`; rejects when the signal aborts.
 */
export async function rollupsCaughtUp(
  client: ClickHouseClient,
  settings: Settings,
  timeoutMs = 120_000,
  signal?: AbortSignal,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  const files = readMigrationFiles();
  for (;;) {
    const {filling, behind} = await rollupsPosition(client, settings, files);
    if (filling.length + behind === 0) return;
    if (Date.now() > deadline) {
      const what = `${filling.length} rollups are being filled, ${behind} rows are in none`;
      throw new PipelineError('ch.unavailable', `views not caught up after ${timeoutMs / 1000} s: ${what}`);
    }
    await sleep(POLL_MS, undefined, {signal});
  }
}
