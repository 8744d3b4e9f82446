import {existsSync} from 'node:fs';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {AS_TEXT, answers, type Row} from '../../clickhouse/testing/answers.ts';
import {reference} from '../../clickhouse/testing/reference.ts';
import {loadDataset} from '../../scripts/shop/dataset.ts';
import {loadHistory} from '../../scripts/shop/history.ts';
import {createRandom} from '../../scripts/shop/random.ts';
import {createShop} from '../../scripts/shop/schema.ts';
import {startTraffic} from '../../scripts/shop/traffic.ts';
import {skip} from '../../scripts/stack/skip.ts';
import {keepRunning} from '../test-support/command-line.ts';
import {makeWorld, type World} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {completeUpTo, sourceMicros} from './testing/complete-up-to.ts';

const SEED = Number(process.env.FRESHET_TEST_SEED ?? 20_261_130);
/** How often the process is killed (the next one waits half a minute for its lock), and the views are compared. */
const KILLS = Number(process.env.FRESHET_TEST_KILLS ?? 3);
const TIMES = 2;
const TABLES = 'customers, products, orders, order_items';
const FULL = '../shared/data/online-retail.csv.gz';

/** Waits until the metrics hold all that was committed up to now. */
async function complete(world: World): Promise<void> {
  const now = await sourceMicros(world);
  await until(async () => (await completeUpTo(world)) >= now);
}

/** Lets nothing more be written to the shop, and compares. Who writes waits meanwhile, and goes on then. */
async function compareViews(t: ExecutionContext, world: World): Promise<void> {
  const {pg, ch, settings} = world;
  await world.caughtUp();
  await complete(world); // so that nobody waits long
  await pg.query(`BEGIN; LOCK TABLE ${TABLES} IN SHARE MODE`);
  await complete(world);
  const both = {
    analytics: settings.FRESHET_ANALYTICS_DATABASE,
    timeZone: settings.FRESHET_TIME_ZONE,
    shown: async (sql: string) => {
      const result = await ch.query({query: sql, format: 'JSONEachRow', clickhouse_settings: AS_TEXT});
      return await result.json<Row>();
    },
    wanted: async (sql: string, values: unknown[]) => (await pg.query<Row>(sql, values)).rows,
  };
  for (const view of Object.keys(reference('UTC'))) {
    const {shown, wanted} = await answers(both, view);
    t.true(wanted.length > 1 || view === 'recent_activity', view);
    t.deepEqual(shown, wanted, view);
  }
  await pg.query('COMMIT');
}

test('killed between any two writes of the rollups, under traffic, every view shows what PostgreSQL has', async t => {
  const world = await makeWorld(t, '', {
    FRESHET_TRANSPORT: 'direct',
    FRESHET_TIME_ZONE: 'America/New_York',
  });
  const url = world.settings.FRESHET_PG_URL;
  await createShop(url);
  await loadHistory(url, {seed: SEED, customers: 300, products: 60, days: 12});
  // A year holds both changes of the clock.
  await world.pg.query(
    `UPDATE orders SET created_at = created_at - id % 13 * interval '30 days';
     UPDATE order_items SET ordered_at = ordered_at - order_id % 13 * interval '30 days'`,
  );
  const errors: string[] = [];
  const traffic = startTraffic(url, {
    rate: 40,
    seed: SEED,
    pace: 30,
    onError: error => errors.push(error.message),
  });
  t.teardown(() => traffic.stop());
  const random = createRandom(SEED, 'kills');
  for (let kill = 0; kill < KILLS; kill++) {
    const count = random.between(1, 60);
    t.log(`seed ${SEED}: SIGKILL before the rollups' write ${count}`);
    const child = keepRunning(t, {...world.environment, FRESHET_FAILPOINT: `rollups.before_write:${count}`}, [
      'run',
    ]);
    t.is(await child.died(), 'SIGKILL');
  }
  const last = keepRunning(t, world.environment, ['run']);
  for (let i = 0; i < TIMES; i++) {
    const before = traffic.stats().orders;
    await until(() => traffic.stats().orders > before + 20);
    await compareViews(t, world);
  }
  await traffic.stop();
  // On a busy machine a statement of the shop may wait longer for the lock than it cares to.
  t.deepEqual(
    errors.filter(error => error !== 'Query read timeout'),
    [],
  );
  t.is(await last.stop(), 0);
});

test('every view shows what PostgreSQL has of the whole of Online Retail', async t => {
  if (!existsSync(FULL)) {
    skip(t, `no ${path.basename(FULL)} beside the project`);
    return;
  }
  const world = await makeWorld(t, '', {FRESHET_TIME_ZONE: 'Europe/London'});
  await createShop(world.settings.FRESHET_PG_URL);
  await loadDataset(world.settings.FRESHET_PG_URL, FULL);
  const pipeline = keepRunning(t, world.environment, ['run']);
  await compareViews(t, world);
  await world.pg.query(
    `UPDATE orders SET status = 'cancelled', created_at = created_at - interval '40 days' WHERE id % 97 = 0;
     UPDATE order_items SET quantity = quantity + 1, product_id = product_id % 4000 + 1 WHERE id % 101 = 0;
     DELETE FROM order_items WHERE id % 103 = 0`,
  );
  await compareViews(t, world);
  t.is(await pipeline.stop(), 0);
});
