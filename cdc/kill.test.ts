import {spawn} from 'node:child_process';
import {once} from 'node:events';
import path from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {loadHistory} from '../scripts/shop/history.ts';
import {createRandom} from '../scripts/shop/random.ts';
import {createShop} from '../scripts/shop/schema.ts';
import {startTraffic} from '../scripts/shop/traffic.ts';
import type {Failpoint} from './observe/failpoint.ts';
import {exitCode, verify} from './reconcile/verify.ts';
import {makeWorld, transport, type World} from './test-support/start-pipeline.ts';

const SEED = Number(process.env.FRESHET_TEST_SEED ?? 20_261_122);

/** How often all windows are gone through, with other counts each time. */
const ROUNDS = Number(process.env.FRESHET_TEST_KILL_ROUNDS ?? 1);

interface Moment {
  readonly window: 'snapshot' | 'transaction' | 'send' | 'before the offsets' | 'behind the offsets';
  readonly place: Failpoint;
  /** How often the place is passed before, at the most. */
  readonly most: number;
  readonly kafka?: true;
}
/** Where the process dies, in turn. A transaction of many batches waits at each start: the first sends are its own. */
const MOMENTS: readonly Moment[] = [
  {window: 'snapshot', place: 'snapshot.chunk', most: 3},
  {window: 'snapshot', place: 'snapshot.chunk', most: 12},
  {window: 'send', place: 'kafka.in_send', most: 40, kafka: true},
  {window: 'before the offsets', place: 'sink.before_commit', most: 6, kafka: true},
  {window: 'before the offsets', place: 'sink.in_insert', most: 40},
  {window: 'transaction', place: 'kafka.after_send', most: 6, kafka: true},
  {window: 'behind the offsets', place: 'capture.before_ack', most: 4},
  {window: 'before the offsets', place: 'sink.before_insert', most: 40},
  {window: 'send', place: 'kafka.before_send', most: 40, kafka: true},
  {window: 'behind the offsets', place: 'sink.after_commit', most: 6, kafka: true},
  {window: 'transaction', place: 'sink.in_insert', most: 6},
];

test('S18 killed ten times and more at seeded moments under traffic, every table equals PostgreSQL', async t => {
  // Rows wait for their insert longer than for the next commit of offsets: one that came too early would lose them.
  const world = await makeWorld(t, '', {
    FRESHET_BATCH_BYTES: '65536',
    FRESHET_FLUSH_MS: '700',
    FRESHET_KAFKA_SESSION_MS: '6000',
  });
  const url = world.settings.FRESHET_PG_URL;
  await createShop(url);
  await loadHistory(url, {seed: SEED, customers: 400, products: 80, days: 12});
  const errors: string[] = [];
  const traffic = startTraffic(url, {
    rate: 60,
    seed: SEED,
    pace: 30,
    onError: error => errors.push(error.message),
  });
  t.teardown(() => traffic.stop());
  const random = createRandom(SEED, 'kills');
  const moments = MOMENTS.filter(({kafka}) => !kafka || transport() === 'kafka');
  const windows = new Set<string>();
  for (const [i, {window, place, most}] of Array.from({length: ROUNDS}, () => moments)
    .flat()
    .entries()) {
    const count = random.between(1, most);
    t.log(`seed ${SEED}: SIGKILL at ${place}, time ${count} (${window})`);
    windows.add(window);
    await world.pg.query(
      `INSERT INTO products (sku, price, description)
       SELECT 'kill-${i}-' || n, n, (SELECT string_agg(md5((n + k)::text), '') FROM generate_series(1, 60) k)
       FROM generate_series(1, 250) n`,
    );
    t.is(await runUntilDeath(t, world, {FRESHET_FAILPOINT: `${place}:${count}`}), 'SIGKILL');
  }
  t.is(windows.size, transport() === 'kafka' ? 5 : 4);
  const last = start(t, world, {});
  await traffic.stop();
  t.true(traffic.stats().orders > 50);
  t.deepEqual(errors, []);
  await world.caughtUp();
  const verdicts = await verify({client: world.ch, settings: world.settings});
  t.is(verdicts.length, 4);
  for (const {table, verdict, differences} of verdicts)
    t.is(verdict, 'equal', `${table} ${JSON.stringify(differences)}`);
  t.is(exitCode(verdicts), 0);
  last.kill('SIGTERM');
  const [code] = await once(last, 'exit');
  t.is(code, 0);
});

function start(t: ExecutionContext, world: World, more: Record<string, string>) {
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'main.ts'), 'run'], {
    env: {
      ...process.env,
      ...world.environment,
      ...more,
      FRESHET_STACK_CHILD: '1',
      FRESHET_LOG_LEVEL: 'error',
    },
    // The pipe ends the child with this process.
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  t.teardown(() => {
    child.kill('SIGKILL');
  });
  return child;
}

/** The signal that the process died of. */
async function runUntilDeath(
  t: ExecutionContext,
  world: World,
  more: Record<string, string>,
): Promise<unknown> {
  const [, signal] = await once(start(t, world, more), 'exit');
  return signal;
}
