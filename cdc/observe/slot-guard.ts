import {setTimeout as sleep} from 'node:timers/promises';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, chName, insertRows} from '../sink/clickhouse.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {readSlot, type SlotRow} from '../source/slot.ts';
import type {Log} from './log.ts';
import {metrics} from './metrics.ts';

/** The slot at one time, as the server has it. */
export interface SlotSample {
  /** ms since 1970. */
  readonly at: number;
  readonly slot: SlotRow;
}

/** What PostgreSQL keeps for the slot, and for how long it can. */
export interface SlotHealth {
  readonly level: 'good' | 'warning' | 'critical' | 'lost';
  /** Bytes of WAL that are kept. */
  readonly retained: number;
  /** Bytes until the slot loses WAL; undefined where max_slot_wal_keep_size sets no limit. */
  readonly safe: number | undefined;
  /** Retained of all that may be; 0 to 1 and above. */
  readonly share: number | undefined;
  /** By how much more is kept each second, over the last minutes; negative while the slot catches up. */
  readonly bytesPerSecond: number;
  /** Until WAL is lost, if it goes on like this; undefined where it does not come to that. */
  readonly secondsToLoss: number | undefined;
  /** For people, in one line. */
  readonly text: string;
}

const EVERY_MS = 5_000;
/** The rate is that of these last milliseconds. */
const WINDOW_MS = 120_000;
const TOLD_AGAIN_MS = 300_000;

/** Worst first: the first that holds is the level. */
const LEVELS: readonly (readonly [
  SlotHealth['level'],
  (health: Pick<SlotHealth, 'share' | 'secondsToLoss'>, walStatus: string | null) => boolean,
])[] = [
  ['lost', (_, walStatus) => walStatus === 'lost'],
  [
    'critical',
    // Nearly full is critical at any rate: the next burst may take the rest.
    ({share = 0, secondsToLoss = Number.POSITIVE_INFINITY}, walStatus) =>
      walStatus === 'unreserved' || share > 0.9 || secondsToLoss < 900,
  ],
  [
    'warning',
    ({share = 0, secondsToLoss = Number.POSITIVE_INFINITY}) => share > 0.5 || secondsToLoss < 7_200,
  ],
  ['good', () => true],
];

/** @param samples of one slot, oldest first; at least one. */
export function slotHealth(samples: readonly SlotSample[]): SlotHealth {
  const [oldest, newest] = [samples[0]!, samples.at(-1)!];
  const {walStatus, invalidationReason} = newest.slot;
  const retained = Number(newest.slot.retainedBytes ?? 0);
  const safe = newest.slot.safeBytes === null ? undefined : Number(newest.slot.safeBytes);
  const share = safe === undefined ? undefined : retained / Math.max(1, retained + safe);
  const seconds = (newest.at - oldest.at) / 1000;
  const grown = retained - Number(oldest.slot.retainedBytes ?? 0);
  const bytesPerSecond = seconds > 0 ? grown / seconds : 0;
  const secondsToLoss =
    safe !== undefined && bytesPerSecond > 0 ? Math.max(0, safe) / bytesPerSecond : undefined;
  const level = LEVELS.find(([, holds]) => holds({share, secondsToLoss}, walStatus))![0];
  const text = [
    `${mebibytes(retained)} of WAL is kept (${walStatus})`,
    invalidationReason ?? '',
    share === undefined ? 'without a limit' : `${Math.round(share * 100)} % of what may be`,
    bytesPerSecond > 0 ? `${mebibytes(bytesPerSecond)} more each second` : '',
    secondsToLoss === undefined ? '' : `it is lost in about ${duration(secondsToLoss)} if that goes on`,
  ]
    .filter(Boolean)
    .join(', ');
  return {level, retained, safe, share, bytesPerSecond, secondsToLoss, text};
}

const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MiB`;
const duration = (seconds: number): string =>
  seconds < 120
    ? `${Math.round(seconds)} s`
    : seconds < 7_200
      ? `${Math.round(seconds / 60)} min`
      : `${Math.round(seconds / 3_600)} h`;

/** Takes a sample; those older than the window go. */
export async function watchSlot(
  settings: Settings,
  samples: SlotSample[],
  at = Date.now(),
): Promise<SlotHealth | undefined> {
  const slot = await withClient({...clientConfig(settings), query_timeout: 10_000}, client =>
    readSlot(client, settings.FRESHET_SLOT),
  );
  if (!slot) {
    samples.length = 0;
    return undefined;
  }
  samples.push({at, slot});
  while (samples.length > 1 && samples[0]!.at < at - WINDOW_MS) samples.shift();
  return slotHealth(samples);
}

/**
 * Looks at the slot until the signal aborts, whatever the stages do: so a sink that is slow or stands still is told of
 * before the slot is lost. In the log when it gets worse or better, in the metrics, and in ClickHouse for the alarms.
 */
export async function guardSlot({
  settings,
  client,
  log,
  signal,
}: {
  settings: Settings;
  client: ClickHouseClient;
  log: Log;
  signal: AbortSignal;
}): Promise<void> {
  const samples: SlotSample[] = [];
  let told: {level: SlotHealth['level']; at: number} = {level: 'good', at: 0};
  while (!signal.aborted) {
    try {
      const health = await watchSlot(settings, samples);
      if (health) {
        const {level, text} = health;
        metrics.retainedBytes.set(health.retained);
        metrics.slotSafeBytes.set(health.safe ?? Number.POSITIVE_INFINITY);
        metrics.slotSecondsToLoss.set(health.secondsToLoss ?? Number.POSITIVE_INFINITY);
        if (level !== told.level || (level !== 'good' && performance.now() - told.at > TOLD_AGAIN_MS)) {
          const tell = level === 'good' ? log.info : level === 'warning' ? log.warn : log.error;
          tell({slot: settings.FRESHET_SLOT, level}, `slot ${settings.FRESHET_SLOT}: ${text}`);
          told = {level, at: performance.now()};
        }
        await insertRows(client, chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_slot'), [
          {
            pipeline: settings.FRESHET_SLOT,
            at: (BigInt(Date.now()) * 1000n).toString(),
            level,
            retained_bytes: Math.round(health.retained),
            safe_bytes: health.safe === undefined ? null : Math.round(health.safe),
            bytes_per_second: health.bytesPerSecond,
            seconds_to_loss: health.secondsToLoss ?? null,
          },
        ]);
      }
    } catch (error) {
      log.debug({error: String(error)}, 'the slot could not be looked at');
    }
    await sleep(EVERY_MS, undefined, {signal}).catch(() => {});
  }
}
