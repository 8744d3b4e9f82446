import test from 'ava';
import {z} from 'zod';
import {migrateAll} from '../context.ts';
import {insertRows} from '../sink/clickhouse.ts';
import {makeWorld, startPipeline, type World} from '../test-support/start-pipeline.ts';
import {serveStatus} from './http.ts';
import {metrics} from './metrics.ts';

const Health = z.strictObject({
  healthy: z.boolean(),
  tables: z.array(z.looseObject({table_name: z.string(), state: z.string()})),
});

/** The three pages of a world, on any free port. */
async function pages(t: Parameters<typeof makeWorld>[0], {ch, settings}: World) {
  const {port, close} = await serveStatus(ch, settings, 0);
  t.teardown(close);
  const get = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`);
    return {status: answer.status, type: answer.headers.get('content-type'), body: await answer.text()};
  };
  return {
    get,
    health: async () => {
      const {status, body} = await get('/health');
      return {status, ...Health.parse(JSON.parse(body))};
    },
  };
}

let second = 0;
/** Puts a table into the pipeline's own tables, as the pipeline would; a later call replaces it. */
async function put(
  {ch, settings}: World,
  name: string,
  {
    state = 'streaming',
    reason = '',
    completeUpTo = '',
  }: {state?: string; reason?: string; completeUpTo?: string},
): Promise<void> {
  const cdc = settings.FRESHET_CLICKHOUSE_DATABASE;
  second += 1;
  const row = {
    schema_name: 'public',
    table_name: name,
    updated_at: `2030-01-01 00:00:${String(second).padStart(2, '0')}`,
  };
  const facts = {target: name, state, reason, snapshot_position: '0', schema_id: ''};
  await insertRows(ch, `${cdc}._tables`, [{...row, ...facts}]);
  const mark = {position: '5', complete_up_to: completeUpTo, newest_commit: null};
  if (completeUpTo) await insertRows(ch, `${cdc}._watermarks`, [{...row, ...mark}]);
}

test('before anything runs: not healthy, an empty page, and metrics', async t => {
  const world = await makeWorld(t, '');
  const {get, health} = await pages(t, world);
  t.deepEqual(await health(), {status: 503, healthy: false, tables: []});
  const page = await get('/');
  t.is(page.status, 200);
  t.regex(page.body, /not complete yet/);
  t.regex(page.body, /No tables yet/);
  t.is((await get('/nowhere?x=1')).status, 404);
});

// Before those that run beside each other: metrics are of the process.
test.serial('metrics have their names and a help each', async t => {
  const world = await makeWorld(t, '');
  await migrateAll(world.ch, world.settings, world.log);
  await put(world, '"q', {state: 'parked'});
  const {get} = await pages(t, world);
  const {status, type, body} = await get('/metrics');
  t.is(status, 200);
  t.regex(type ?? '', /^text\/plain; version=/);
  const names = [...body.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name);
  t.is(names.length, Object.keys(metrics).length);
  for (const name of names) {
    t.regex(name ?? '', /^freshet_[a-z_]+$/);
    t.regex(body, new RegExp(`^# HELP ${name} \\S`, 'm'));
  }
  t.true(body.includes('freshet_table_parked{table="public.\\"q"} 1'));
  await put(world, '"q', {});
  t.notRegex((await get('/metrics')).body, /^freshet_table_parked/m);
});

test('a pipeline that keeps up is healthy, and the page shows its tables', async t => {
  const world = await startPipeline(
    t,
    'CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)',
  );
  await world.caughtUp();
  const {get, health} = await pages(t, world);
  const {status, healthy, tables} = await health();
  t.is(status, 200);
  t.true(healthy);
  t.deepEqual(
    tables.map(({table_name}) => table_name),
    ['public.items'],
  );
  const {type, body} = await get('/');
  t.is(type, 'text/html; charset=utf-8');
  t.regex(body, /complete up to \d\d:\d\d:\d\d UTC/);
  t.true(body.includes('>public.items</td>'));
  const {body: text} = await get('/metrics');
  t.regex(text, /^freshet_rows_visible_total\{table="public\.items"\} \d+$/m);
});

test('one table that is late, parked or unknown is enough not to be healthy', async t => {
  const world = await makeWorld(t, '');
  await migrateAll(world.ch, world.settings, world.log);
  const {get, health} = await pages(t, world);
  // `data_freshness` compares with the clock: far in the future is never late, and the past always is.
  await put(world, 'well', {completeUpTo: '2200-01-01 00:00:01'});
  t.like(await health(), {status: 200, healthy: true});
  t.regex((await get('/')).body, /complete up to 2200-01-01 00:00:01 UTC/);

  const cases = [
    {shown: 'late', row: {completeUpTo: '2020-01-01 12:34:56'}, headline: /up to 2020-01-01 12:34:56 UTC/},
    {shown: 'parked', row: {state: 'parked'}, headline: /up to 2020-01-01 12:34:56 UTC/},
    {shown: 'unknown', row: {state: 'snapshot'}, headline: /not complete yet/},
  ];
  for (const {shown, row, headline} of cases) {
    await put(world, 'other', row);
    const {status, healthy, tables} = await health();
    t.deepEqual({status, healthy}, {status: 503, healthy: false}, shown);
    t.like(tables, [
      {table_name: 'public.other', state: shown},
      {table_name: 'public.well', state: 'idle'},
    ]);
    t.regex((await get('/')).body, headline, shown);
  }
  await put(world, 'other', {completeUpTo: '2200-01-01 00:00:00'});
  t.like(await health(), {status: 200, healthy: true});

  // What is counted from the tables may stand still while those go on.
  for (const [reached, shown, healthy] of [
    ['2020-01-01 12:34:56', 'late', false],
    [null, 'unknown', false],
    ['2200-01-01 00:00:00', 'ok', true],
  ] as const) {
    await insertRows(world.ch, `${world.settings.FRESHET_CLICKHOUSE_DATABASE}._rollup_watermark`, [
      {one: 0, complete_up_to: reached},
    ]);
    const found = await health();
    t.like(found, {healthy, status: healthy ? 200 : 503}, shown);
    t.like(found.tables[0], {table_name: 'metrics', state: shown});
  }
});

test('names and reasons are text on the page, whatever is in them', async t => {
  const world = await makeWorld(t, '');
  await migrateAll(world.ch, world.settings, world.log);
  const {get} = await pages(t, world);
  await put(world, '<b>x', {state: 'parked', reason: 'a "value" <script>alert(1)</script> & more'});
  const {body} = await get('/');
  t.true(body.includes('public.&#60;b&#62;x'));
  t.true(body.includes('a &#34;value&#34; &#60;script&#62;alert(1)&#60;/script&#62; &#38; more'));
  t.false(body.includes('<b>x'));
  t.false(body.includes('<script'));
});

test('a server that is away is an answer, not the end', async t => {
  const world = await makeWorld(t, '');
  const {get} = await pages(t, world);
  await world.ch.close();
  const {status, body} = await get('/health');
  t.true(status >= 500, body);
  t.is((await get('/metrics')).status, 200);
});
