import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {readSlot} from '../source/slot.ts';

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

/** One row a table, as `data_freshness` has it; none before the pipeline has made its views. */
export async function readFreshness(client: ClickHouseClient, settings: Settings): Promise<Freshness[]> {
  const view = chName(settings.FRESHET_ANALYTICS_DATABASE, 'data_freshness');
  try {
    return await rows(client, Freshness, `SELECT * FROM ${view} ORDER BY table_name`);
  } catch (error) {
    if (error instanceof PipelineError && error.code === 'ch.not_set_up') return [];
    throw error;
  }
}

/** WAL kept for a slot that nobody reads fills the source's disk: from here on it is a warning. */
const MUCH_WAL = 1n << 30n;

export interface SlotReport {
  readonly line: string;
  readonly warnings: readonly string[];
}

/** What the source keeps for this pipeline, and what a person should know about it. */
export async function readSlotReport(settings: Settings): Promise<SlotReport> {
  const name = settings.FRESHET_SLOT;
  const slot = await withClient(clientConfig(settings), client => readSlot(client, name));
  if (!slot)
    return {line: `slot ${name}: none`, warnings: ['no slot: nothing is captured; `freshet run` makes one']};
  const retained = BigInt(slot.retainedBytes ?? 0);
  const warnings: string[] = [];
  if (!slot.active)
    warnings.push(`nobody reads slot ${name}: PostgreSQL keeps WAL for it until somebody does`);
  if (slot.walStatus === 'lost')
    warnings.push(`slot ${name} lost WAL: the next start reads all tables again`);
  if (slot.walStatus === 'unreserved')
    warnings.push(`slot ${name} is about to lose WAL: max_slot_wal_keep_size is passed`);
  if (retained > MUCH_WAL) warnings.push(`${mebibytes(retained)} of WAL is kept for slot ${name}`);
  const safe = slot.safeBytes === null ? '' : `, ${mebibytes(BigInt(slot.safeBytes))} until it is lost`;
  const line = `slot ${name}: ${slot.active ? `read by pid ${slot.activePid}` : 'not read'}, at ${slot.confirmedFlush}, ${mebibytes(retained)} of WAL kept (${slot.walStatus})${safe}`;
  return {line, warnings};
}

const mebibytes = (bytes: bigint): string => `${(Number(bytes) / (1 << 20)).toFixed(1)} MiB`;
