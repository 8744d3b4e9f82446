import {randomUUID} from 'node:crypto';
import {setTimeout as delay} from 'node:timers/promises';
import type {ClickHouseClient} from '@clickhouse/client';
import {chName} from '../cdc/sink/clickhouse.ts';
import {type Names, statementsOf} from './migration-files.ts';

/** Who holds it says that he lives more often than that: silence means he died. */
export const DEAD_AFTER_SECONDS = 30;

/**
 * Claims are numbered. All who want number n insert with the same deduplication token, so ClickHouse keeps the
 * first and drops the rest without a word; whoever then reads its own name holds the lock. Rows stay: number
 * and token must never come again.
 */
const lockTable = (name: string, about: string): string => `
CREATE TABLE IF NOT EXISTS {cdc}.${name} {on_cluster} (
  number UInt64,
  event LowCardinality(String) COMMENT 'claim, alive or release',
  owner String,
  at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = MergeTree ORDER BY (number, event) TTL toDateTime(at) + INTERVAL 1 DAY DELETE WHERE event = 'alive'
SETTINGS non_replicated_deduplication_window = 1000
COMMENT '${about}; one claim a number';
`;

export interface Lock {
  /** Of the claim; the highest one holds the lock. */
  readonly number: bigint;
  /** Tells others that this one is at work. */
  alive(): Promise<void>;
  release(): Promise<void>;
}

/** What is locked, by the table that is made for it. */
export const LOCKS = {
  migration: {table: '_migration_lock', about: 'Who migrates'},
  rollups: {table: '_rollup_lock', about: 'Who keeps the rollups up to date'},
} as const;

/** The highest number, as a subquery: found by the sorting key, however many there are. */
export const newestClaim = (names: Names, which: keyof typeof LOCKS): string =>
  `(SELECT number FROM ${chName(names.cdc, LOCKS[which].table)} ORDER BY number DESC LIMIT 1)`;

/**
 * Waits until nobody else is at work and takes the lock; one that was silent for 30 s is passed over. Undefined where
 * it is still held after `patienceMs`.
 * @param fromHolder takes it from whoever has it: only where that one finds out before it does harm
 */
export async function takeLock(
  client: ClickHouseClient,
  names: Names,
  which: keyof typeof LOCKS,
  {patienceMs, fromHolder = false, onWait}: {patienceMs: number; fromHolder?: boolean; onWait?: () => void},
): Promise<Lock | undefined> {
  const {table: name, about} = LOCKS[which];
  for (const query of statementsOf(lockTable(name, about), names)) await client.command({query});
  const table = chName(names.cdc, name);
  const owner = randomUUID();
  const write = async (number: bigint, event: 'claim' | 'alive' | 'release') => {
    await client.insert({
      table,
      values: [{number: String(number), event, owner}],
      format: 'JSONEachRow',
      columns: ['number', 'event', 'owner'],
      clickhouse_settings: {
        async_insert: 0,
        insert_deduplicate: 1,
        insert_deduplication_token: event === 'claim' ? `claim-${number}` : randomUUID(),
      },
    });
  };
  const newest = async () => {
    const result = await client.query({
      query: `SELECT toString(number) AS claim, anyIf(owner, event = 'claim') AS owner,
        countIf(event = 'release') > 0 AS released, dateDiff('millisecond', max(at), now64(6)) / 1000 AS silent
        FROM ${table} WHERE number = ${newestClaim(names, which)} GROUP BY number`,
      format: 'JSONEachRow',
    });
    return (await result.json<{claim: string; owner: string; released: boolean; silent: number}>())[0];
  };

  let waiting = false;
  const giveUpAt = performance.now() + patienceMs;
  do {
    const last = await newest();
    if (!fromHolder && last && !last.released && last.silent < DEAD_AFTER_SECONDS) {
      if (!waiting) onWait?.();
      waiting = true;
      if (patienceMs > 0) await delay(100);
      continue;
    }
    const number = BigInt(last?.claim ?? 0) + 1n;
    await write(number, 'claim');
    const now = await newest();
    if (now?.claim === String(number) && now.owner === owner) {
      return {number, alive: () => write(number, 'alive'), release: () => write(number, 'release')};
    }
  } while (performance.now() < giveUpAt);
  return undefined;
}
