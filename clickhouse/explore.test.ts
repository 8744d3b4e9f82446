import {readFile} from 'node:fs/promises';
import test from 'ava';
import {migrateAndSettle} from '../cdc/rollups/testing/hold-rollups.ts';
import {fillClickHouse, shopRows} from './testing/shop-rows.ts';
import {createShopTables, testWarehouse} from './testing/warehouse.ts';

const PAGES = ['../docs/explore.md', '../README.md'];

test('every query of the pages for explorers can be run as it stands there', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await createShopTables(warehouse);
  await fillClickHouse(warehouse, shopRows());
  await migrateAndSettle(warehouse);
  let run = 0;
  for (const page of PAGES) {
    const text = await readFile(new URL(page, import.meta.url), 'utf8');
    const queries = [...text.matchAll(/```sql\n(.*?)```/gs)]
      .flatMap(([, block]) => block!.split(/;$/m))
      .map(query => query.replaceAll(/^--.*$/gm, '').trim())
      .filter(query => /^(SELECT|DESCRIBE)/.test(query));
    for (const query of queries) {
      const found = await warehouse.rows(
        query.replaceAll('ecommerce_analytics', warehouse.databases.analytics),
      );
      // Nothing has run here that would make the tables fresh.
      t.true(found.length > 0 || query.includes('data_freshness'), query);
      run += 1;
    }
  }
  t.true(run > 12);
});
