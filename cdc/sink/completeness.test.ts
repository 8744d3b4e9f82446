import test from 'ava';
import type {Ends} from '../kafka/message.ts';
import {startPipeline} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';
import {Completeness} from './completeness.ts';
import {Registry} from './registry.ts';
import type {SinkOptions} from './sink-options.ts';

test('what the topics held at the first watermark is waited for, though the next ones tell of less', async t => {
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)',
  );
  const {ch, settings, log} = world;
  await world.caughtUp();
  await world.stop();
  const registry = new Registry(ch, settings);
  const {epoch} = (await registry.source())!;
  const read = async (table: string): Promise<bigint> => {
    const [row] = await world.query(
      `SELECT toString(position) AS position FROM {cdc}._watermarks FINAL WHERE table_name = '${table}'`,
    );
    return BigInt(String(row?.position ?? 0));
  };
  const start = await read('b');
  const subscriber = {elsewhere: async () => []};
  const completeness = new Completeness({
    client: ch,
    settings,
    registry,
    log,
    subscriber,
  } as unknown as SinkOptions);
  const over = new AbortController();
  const running = completeness.run(over.signal);
  t.teardown(async () => {
    over.abort();
    await running;
  });
  const add = (more: bigint, ends: Ends[string], isWhole: boolean): void =>
    completeness.add(
      {
        epoch,
        position: (start + more).toString(),
        micros: `${Date.now()}000`,
        newest: {},
        ends: {'public.a': ends},
      },
      isWhole,
    );
  add(1n, {0: '10', 1: '10'}, true);
  add(2n, {0: '5'}, false);
  completeness.visible('public.a', 0, 10n);
  await until(async () => (await read('b')) === start + 2n);
  t.true((await read('a')) <= start);
  completeness.visible('public.a', 1, 10n);
  await until(async () => (await read('a')) === start + 2n);
});
