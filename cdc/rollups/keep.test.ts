import test from 'ava';
import {migrate} from '../../clickhouse/migrate.ts';
import {fillClickHouse, shopRows} from '../../clickhouse/testing/shop-rows.ts';
import {createShopTables, testWarehouse} from '../../clickhouse/testing/warehouse.ts';
import {viewVersions} from '../../clickhouse/versions.ts';
import {loadSettings} from '../settings/settings.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {until} from '../test-support/until.ts';
import {keepRollups} from './keep.ts';
import {holdRollups} from './testing/hold-rollups.ts';

test('views go over to rollups that somebody else has filled', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const {client, databases} = warehouse;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrate(warehouse);
  const {rollups, release} = await holdRollups(warehouse, {onFilled: async () => {}});
  await rollups.settle();
  await release();
  const shows = async (): Promise<unknown> =>
    (await viewVersions(warehouse)).find(({name}) => name === 'daily_sales_summary')?.shows;
  t.is(await shows(), 1);

  const settings = loadSettings({
    FRESHET_PG_URL: 'postgres://nobody@localhost/none',
    FRESHET_TRANSPORT: 'direct',
    FRESHET_CLICKHOUSE_DATABASE: databases.cdc,
    FRESHET_ANALYTICS_DATABASE: databases.analytics,
  });
  const stop = new AbortController();
  const kept = keepRollups({client, settings, log: quietLog(), signal: stop.signal});
  await until(async () => (await shows()) !== 1);
  stop.abort();
  await kept;
  t.is(await shows(), 2);
});
