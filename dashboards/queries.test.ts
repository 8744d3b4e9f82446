import test from 'ava';
import {z} from 'zod';
import {expandMacros} from './macros.ts';
import {everyQuery, type Query} from './testing/queries.ts';
import {createWarehouse, type Warehouse} from './testing/warehouse.ts';
import {type Chosen, replaceVariables} from './variables.ts';

const Answer = z.object({
  meta: z.array(z.object({name: z.string(), type: z.string()})),
  data: z.array(z.array(z.unknown())),
});
type Answer = z.infer<typeof Answer>;

let filled: Warehouse;
let empty: Warehouse;
test.before(async () => {
  filled = await createWarehouse({filled: true});
  empty = await createWarehouse({filled: false});
});
test.after.always(async () => {
  for (const warehouse of [filled, empty]) await warehouse?.drop();
});

const HOURS: Readonly<Record<string, number>> = {m: 1 / 60, h: 1, d: 24};

/** Sends a query as Grafana would, with the right to read only. */
async function ask(
  {client}: Warehouse,
  query: Pick<Query, 'rawSql' | 'from'>,
  chosen: Chosen,
  to = new Date(),
): Promise<Answer> {
  const [, count, unit] = /^now-(\d+)([mhd])$/.exec(query.from)!;
  const from = new Date(to.getTime() - Number(count) * HOURS[unit!]! * 3_600_000);
  const sql = expandMacros(replaceVariables(query.rawSql, chosen), {from, to, intervalMs: 60_000});
  if (/\$(__|\{)/.test(sql)) throw new Error(`something is left over: ${sql}`);
  const answer = await client.query({
    query: sql,
    format: 'JSONCompact',
    clickhouse_settings: {readonly: '1'},
  });
  return Answer.parse(await answer.json());
}

const bare = (type: string) => type.replaceAll(/(Nullable|LowCardinality)\(|\)+$/g, '');
const isTime = (type: string) => /^DateTime/.test(bare(type));
const isNumber = (type: string) => /^(U?Int|Float|Decimal)/.test(bare(type));
const isText = (type: string) => /^String/.test(bare(type));

/** What is wrong with an answer for the way it is shown. */
function complaints({format, kind, panel}: Query, {meta, data}: Answer): string[] {
  const wrong: string[] = [];
  const names = meta.map(({name}) => name);
  if (kind === 'alert' && !(data.length === 1 && meta.length === 1 && isNumber(meta[0]!.type))) {
    wrong.push('an alert needs one number');
  }
  if (kind === 'alert' && data[0]?.[0] === null) wrong.push('an alert needs a number, not NULL');
  if (kind === 'variable' && names.length > 2) wrong.push('a variable has a value and a text');
  if (format === 0) {
    const [first, ...others] = meta;
    if (!isTime(first!.type)) wrong.push(`the first column is ${first!.type}, not a time`);
    if (!others.every(({type}) => isNumber(type) || isText(type))) wrong.push('lines must be numbers');
    if (!others.some(({type}) => isNumber(type))) wrong.push('no line');
    const times = data.map(row => String(row[0]));
    if (times.some((time, i) => i > 0 && time < times[i - 1]!)) wrong.push('times do not ascend');
  }
  const {xField, reduceOptions} = panel?.options ?? {};
  if (xField !== undefined && !names.includes(xField)) wrong.push(`no column ${xField}`);
  const field = reduceOptions && new RegExp(reduceOptions.fields.replaceAll('/', ''));
  if (field && !names.some(name => field.test(name))) wrong.push(`no column ${field}`);
  const named = (panel?.fieldConfig?.overrides ?? [])
    .filter(({matcher}) => matcher.id === 'byName')
    .map(({matcher}) => String(matcher.options));
  for (const name of named) if (!names.includes(name)) wrong.push(`no column ${name}`);
  if (panel?.type === 'table') {
    for (const name of names) if (!named.includes(name)) wrong.push(`${name} has neither heading nor unit`);
  }
  return wrong;
}

const ALL: Chosen = {country: null, search: ['']};
const SOME: Chosen = {country: ["Côte d'Ivoire", 'DE'], search: ["o'brien 1"]};

test('every query answers with what its panel, variable or alert shows', async t => {
  for (const query of everyQuery(filled.analytics)) {
    const answer = await ask(filled, query, ALL);
    t.deepEqual(complaints(query, answer), [], query.name);
    t.true(answer.data.length > 0, `${query.name}: no rows`);
  }
});

test('chosen values reach the queries that have variables', async t => {
  const queries = everyQuery(filled.analytics).filter(({rawSql}) => rawSql.includes('$__conditionalAll'));
  t.true(queries.length > 5);
  for (const query of queries) {
    const all = await ask(filled, query, ALL);
    const some = await ask(filled, query, SOME);
    t.deepEqual(complaints(query, some), [], query.name);
    t.true(some.data.length > 0, `${query.name}: no rows`);
    t.notDeepEqual(some.data, all.data, `${query.name}: the choice changes nothing`);
    for (const name of Object.keys(SOME).filter(name => query.rawSql.includes(`, $${name})`))) {
      const none = await ask(filled, query, {...SOME, [name]: ['nobody']});
      t.notDeepEqual(none.data, some.data, `${query.name}: ${name} changes nothing`);
    }
  }
});

test.serial('a new installation, where nothing has arrived, shows no error', async t => {
  for (const query of everyQuery(empty.analytics)) {
    const answer = await ask(empty, query, ALL);
    t.deepEqual(complaints(query, answer), [], query.name);
  }
});

test.serial('where the only order was cancelled, no panel divides by zero', async t => {
  await empty.run(`INSERT INTO {cdc}.public__orders
    SELECT 1, 'N1', NULL, 'cancelled', 'DE', 'GBP', NULL, now64(6), now64(6), 1, 0, now64(6), now64(3)`);
  for (const query of everyQuery(empty.analytics)) {
    t.deepEqual(complaints(query, await ask(empty, query, ALL)), [], query.name);
  }
});

test('figures against the period before are two rows, the range last', async t => {
  const queries = everyQuery(filled.analytics).filter(({rawSql}) => rawSql.includes('in_range'));
  t.is(queries.length, 6);
  for (const query of queries) {
    const {data} = await ask(filled, query, ALL);
    t.deepEqual(
      data.map(([inRange]) => Boolean(inRange)),
      [false, true],
      query.name,
    );
  }
  const {client, analytics} = filled;
  const days = await client.query({
    query: `SELECT toString(sum(revenue)) AS revenue FROM ${analytics}.daily_sales_summary_v2
      WHERE day >= today() - 30 GROUP BY day >= today() - 30`,
    format: 'JSONEachRow',
  });
  const [expected] = await days.json<{revenue: string}>();
  const revenue = queries.find(({name}) => name.endsWith(': Revenue'))!;
  const {data} = await ask(filled, revenue, ALL);
  t.is(Number(data[1]?.[1]), Number(expected!.revenue));
});

test('a range without an order shows nothing, and not the days before it', async t => {
  const in31Days = new Date(Date.now() + 31 * 86_400_000);
  const before: Record<string, number> = {};
  for (const query of everyQuery(filled.analytics).filter(({rawSql}) => rawSql.includes('in_range'))) {
    const {data} = await ask(filled, {...query, from: 'now-30d'}, ALL, in31Days);
    t.deepEqual(
      data.map(([inRange]) => Boolean(inRange)),
      [false, true],
      query.name,
    );
    t.is(Number(data[1]![1]), 0, query.name);
    t.deepEqual(query.panel?.options?.reduceOptions?.calcs, ['last'], query.name);
    before[query.panel!.title] = Number(data[0]![1]);
  }
  t.true(before.Revenue! > 0 && before.Orders! > 0);
});

test('days of the panels are those of the business', async t => {
  // In Kiritimati it is a day later than in UTC for 14 hours, in Pago Pago earlier for 11.
  for (const zone of ['Pacific/Kiritimati', 'Pacific/Pago_Pago'])
    for (const {name, rawSql, from} of everyQuery(filled.analytics, zone).filter(one =>
      one.rawSql.includes('toDate32'),
    )) {
      const asked = {rawSql: `SELECT toString(max(day)) FROM (${daysOf(rawSql)})`, from};
      const today = new Intl.DateTimeFormat('sv-SE', {timeZone: zone}).format(new Date());
      t.deepEqual((await ask(filled, asked, ALL)).data, [[today]], `${name}, ${zone}`);
    }
});

/** The same condition over a view that has every day. */
const daysOf = (rawSql: string): string => {
  const known = /^WITH [^\n]*/.exec(rawSql)?.[0] ?? '';
  const condition = /WHERE (day BETWEEN .*)/.exec(rawSql)![1]!;
  return `${known} SELECT toDate32(today() + number - 5) AS day FROM numbers(11) WHERE ${condition}`;
};

test('alerts count the tables in trouble', async t => {
  const values: Record<string, unknown> = {};
  for (const query of everyQuery(filled.analytics).filter(({kind}) => kind === 'alert')) {
    values[query.name.replace('alert: ', '')] = Number((await ask(filled, query, ALL)).data[0]?.[0]);
  }
  t.deepEqual(values, {
    'A table is late': 1,
    'A table is parked': 1,
    'Complete up to stands still': 1,
    // One table, and the metrics, of whose tables nothing is said here.
    'A table stays unknown': 2,
    'The slot may lose WAL': 1,
    'Orders in another currency': 1,
    'The pipeline has not reported any table': 6,
  });
});
