import {setTimeout as sleep} from 'node:timers/promises';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {type SlotSample, watchSlot} from './slot-guard.ts';

const Freshness = z.object({
  table_name: z.string(),
  newest_commit: z.string().nullable(),
  newest_visible: z.string().nullable(),
  lag_seconds: z.number().nullable(),
  p95_lag_seconds: z.number().nullable(),
  complete_up_to: z.string().nullable(),
  seconds_behind: z.number().nullable(),
  state: z.enum(['ok', 'late', 'idle', 'unknown', 'parked']),
  reason: z.string(),
  rows_last_5_min: z.coerce.number(),
});
export type Freshness = z.infer<typeof Freshness>;

/** The row of `data_freshness` for the views over the tables. */
export const METRICS = 'metrics';

/** One row a table, and one for the metrics, as `data_freshness` has it; none before the pipeline has made its views. */
export async function readFreshness(client: ClickHouseClient, settings: Settings): Promise<Freshness[]> {
  const view = chName(settings.FRESHET_ANALYTICS_DATABASE, 'data_freshness');
  try {
    return await rows(client, Freshness, `SELECT * FROM ${view} ORDER BY table_name`);
  } catch (error) {
    if (error instanceof PipelineError && error.code === 'ch.not_set_up') return [];
    throw error;
  }
}

const seconds = (value: number | null): string => (value === null ? '' : `${value.toFixed(2)} s`);

/** A row of `data_freshness` for people; `notes` has what else is known of tables that are not as they should be. */
export const freshnessLine = (row: Freshness, notes: ReadonlyMap<string, string>) => ({
  table: row.table_name,
  state: row.state,
  lag: seconds(row.lag_seconds),
  'p95 lag': seconds(row.p95_lag_seconds),
  'complete up to': row.complete_up_to?.slice(0, 19) ?? 'unknown',
  behind: seconds(row.seconds_behind),
  'rows in 5 min': row.rows_last_5_min,
  note: notes.get(row.table_name) ?? row.reason,
});

/** WAL that is kept without a limit fills the source's disk: from here on it is a warning. */
const MUCH_WAL = 1 << 30;
/** Between two looks at the slot, which tell how fast more WAL is kept. */
const LOOK_MS = 1_000;

export interface SlotReport {
  readonly line: string;
  readonly warnings: readonly string[];
}

/** What the source keeps for this pipeline, and what a person should know about it. */
export async function readSlotReport(settings: Settings): Promise<SlotReport> {
  const name = settings.FRESHET_SLOT;
  const samples: SlotSample[] = [];
  await watchSlot(settings, samples);
  await sleep(LOOK_MS);
  const health = await watchSlot(settings, samples);
  const slot = samples.at(-1)?.slot;
  if (!slot || !health)
    return {line: `slot ${name}: none`, warnings: ['no slot: nothing is captured; `freshet run` makes one']};
  const warnings: string[] = [];
  if (!slot.active)
    warnings.push(`nobody reads slot ${name}: PostgreSQL keeps WAL for it until somebody does`);
  if (health.level === 'lost') warnings.push(`slot ${name} lost WAL: the next start reads all tables again`);
  else if (health.level !== 'good') warnings.push(`slot ${name} may lose WAL: ${health.text}`);
  else if (health.safe === undefined && health.retained > MUCH_WAL)
    warnings.push(`slot ${name}: ${health.text}`);
  const reader = slot.active ? `read by pid ${slot.activePid}` : 'not read';
  return {line: `slot ${name}: ${reader}, at ${slot.confirmedFlush}, ${health.text}`, warnings};
}
