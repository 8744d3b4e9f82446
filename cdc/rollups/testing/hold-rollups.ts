import {takeLock} from '../../../clickhouse/lock.ts';
import {migrate} from '../../../clickhouse/migrate.ts';
import type {TestWarehouse} from '../../../clickhouse/testing/warehouse.ts';
import {quietLog} from '../../test-support/quiet-log.ts';
import {Rollups, type RollupsOptions} from '../worker.ts';

/** Takes the lock, and with it the place of the process that keeps the rollups. */
export async function holdRollups(
  {client, databases}: Pick<TestWarehouse, 'client' | 'databases'>,
  {
    fromHolder = false,
    ...more
  }: Pick<RollupsOptions, 'beforeWrite' | 'files' | 'most'> & {fromHolder?: boolean} = {},
): Promise<{rollups: Rollups; release: () => Promise<void>}> {
  const lock = await takeLock(client, databases, 'rollups', {patienceMs: 10_000, fromHolder});
  if (!lock) throw new Error('somebody else keeps the rollups');
  const rollups = new Rollups({
    client,
    names: databases,
    lock,
    // One that cannot be computed is left out and filled anew: a test would not notice.
    log: {
      ...quietLog(),
      error: (_, message) => {
        throw new Error(message);
      },
    },
    onFilled: async () => {
      await migrate({client, databases, ...(more.files && {files: more.files})});
    },
    ...more,
  });
  await rollups.takeOver();
  return {rollups, release: () => lock.release()};
}

/** Applies all files, the views over rollups too, and brings the rollups up to what is written. */
export async function migrateAndSettle(
  warehouse: Pick<TestWarehouse, 'client' | 'databases'>,
): Promise<void> {
  const {client, databases} = warehouse;
  await migrate({client, databases});
  const {rollups, release} = await holdRollups(warehouse);
  await rollups.settle();
  await release();
}
