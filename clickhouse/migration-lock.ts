import {randomUUID} from 'node:crypto';
import {setTimeout as delay} from 'node:timers/promises';
import type {ClickHouseClient} from '@clickhouse/client';
import {PipelineError} from '../cdc/failures.ts';
import {chName} from '../cdc/sink/clickhouse.ts';
import {type Names, statementsOf} from './migration-files.ts';

/** A runner says that it lives before each file, and no file takes nearly as long: silence means it died. */
const DEAD_AFTER_SECONDS = 30;
const GIVE_UP_AFTER_MS = 60_000;

/**
 * Claims are numbered. All who want number n insert with the same deduplication token, so ClickHouse keeps the
 * first and drops the rest without a word; whoever then reads its own name holds the lock. Rows stay: number
 * and token must never come again.
 */
const LOCK_TABLE = `
CREATE TABLE IF NOT EXISTS {cdc}._migration_lock {on_cluster} (
  number UInt64,
  event LowCardinality(String) COMMENT 'claim, alive or release',
  owner String,
  at DateTime64(6, 'UTC') DEFAULT now64(6)
) ENGINE = MergeTree ORDER BY (number, event) SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Who migrates; one claim a number';
`;

export interface MigrationLock {
  /** Tells other runners that this one is at work. */
  alive(): Promise<void>;
  release(): Promise<void>;
}

/**
 * Waits until no other runner is at work and takes the lock; a runner that was silent for 30 s is passed over.
 * Throws PipelineError 'ch.migration_locked' after a minute.
 */
export async function takeMigrationLock(
  client: ClickHouseClient,
  names: Names,
  log?: (line: string) => void,
): Promise<MigrationLock> {
  for (const query of statementsOf(LOCK_TABLE, names)) await client.command({query});
  const table = chName(names.cdc, '_migration_lock');
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
        FROM ${table} GROUP BY number ORDER BY number DESC LIMIT 1`,
      format: 'JSONEachRow',
    });
    return (await result.json<{claim: string; owner: string; released: boolean; silent: number}>())[0];
  };

  let waiting = false;
  const giveUpAt = performance.now() + GIVE_UP_AFTER_MS;
  while (performance.now() < giveUpAt) {
    const last = await newest();
    if (last && !last.released && last.silent < DEAD_AFTER_SECONDS) {
      if (!waiting) log?.('another runner is migrating; waiting for it');
      waiting = true;
      await delay(100);
      continue;
    }
    const number = BigInt(last?.claim ?? 0) + 1n;
    await write(number, 'claim');
    const now = await newest();
    if (now?.claim === String(number) && now.owner === owner) {
      return {alive: () => write(number, 'alive'), release: () => write(number, 'release')};
    }
  }
  throw new PipelineError('ch.migration_locked', 'another runner has been migrating for a minute');
}
