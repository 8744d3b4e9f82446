import test from 'ava';
import {command} from '../sink/clickhouse.ts';
import {freshet} from '../test-support/command-line.ts';
import {startPipeline} from '../test-support/start-pipeline.ts';
import {until} from '../test-support/until.ts';

test('S17 dead letters are listed, dropped and retried by table and by place, also while nothing runs', async t => {
  const world = await startPipeline(
    t,
    'CREATE TABLE a (id int PRIMARY KEY, n int); CREATE TABLE b (id int PRIMARY KEY, n int)',
    {FRESHET_DEAD_LETTER_TABLES: 'public.*'},
  );
  const {pg, ch, query, environment, settings} = world;
  await world.caughtUp();
  const run = (...args: string[]) => freshet(t, environment, ['dead-letter', ...args]);
  const none = await run('list');
  t.deepEqual([none.code, none.stdout], [0, 'no open dead letters\n']);
  const database = settings.FRESHET_CLICKHOUSE_DATABASE;
  for (const table of ['a', 'b'])
    await command(ch, `ALTER TABLE ${database}.public__${table} ADD CONSTRAINT positive CHECK n > 0`);
  await pg.query('INSERT INTO a VALUES (1, -1), (2, -2); INSERT INTO b VALUES (3, -3)');
  const letters = 'SELECT key, state FROM {cdc}._dead_letters FINAL ORDER BY key';
  await until(async () => (await query(letters)).length === 3);
  await world.stop();

  const listed = await run('list', 'public.a');
  t.is(listed.code, 1);
  const places = [...listed.stdout.matchAll(/^public\.a +(\S+) +\{"id":(\d)\}.*ch\.rejected.*positive/gm)];
  t.deepEqual(
    places.map(([, , id]) => id),
    ['1', '2'],
    listed.stdout,
  );
  t.is((await run('list')).stdout.match(/positive/g)?.length, 3);
  for (const wrong of [
    ['drop', 'public.x'],
    ['retry', 'public.a', '--place', '9/9'],
  ]) {
    const refused = await run(...wrong);
    t.is(refused.code, 1);
    t.regex(refused.stderr, /^✗ no such table or letter: public\./);
  }
  t.is((await run('drop')).code, 1); // a table must be named
  const one = await run('drop', 'public.a', '--place', places[0]![1]!);
  t.is(one.code, 0, one.stderr);
  t.regex(one.stdout, /^✓ public\.a \S+ was dropped\n$/);
  await command(ch, `ALTER TABLE ${database}.public__b DROP CONSTRAINT positive`);
  const retried = await run('retry', 'public.*');
  t.is(retried.code, 1);
  t.regex(retried.stdout, /^✗ public\.a .*positive.*\n✓ public\.b \S+ was applied\n$/m);
  t.deepEqual(await query(letters), [
    {key: '{"id":1}', state: 'dropped'},
    {key: '{"id":2}', state: 'open'},
    {key: '{"id":3}', state: 'retried'},
  ]);
  t.deepEqual(await query('SELECT id, n FROM {an}.b'), [{id: 3, n: -3}]);
  // What is closed keeps no values.
  t.deepEqual(
    await query(
      "SELECT count() AS letters FROM {cdc}._dead_letters FINAL WHERE state <> 'open' AND message_value <> ''",
    ),
    [{letters: '0'}],
  );
});
