import test from 'ava';
import {pgLiteral, pgName} from '../source/table-schema.ts';
import {startPipeline, type World} from '../test-support/start-pipeline.ts';
import {captured, compare} from './testing/compare.ts';
import {
  arrays,
  createTable,
  insertRows,
  ODD_ARRAYS,
  scalars,
  type TableUnderTest,
  TYPES_SQL,
  typesUnderTest,
} from './testing/every-type.ts';

const STREAMED = 1000;
test('every sample of every type arrives as it is, by snapshot and by stream', async t => {
  const {types, arrayDomains, extensions} = await typesUnderTest(t);
  const tables: Readonly<Record<string, TableUnderTest>> = {
    scalars: scalars(types, false),
    scalars_not_null: scalars(types, true),
    array_domains: scalars(arrayDomains, false),
    array_domains_not_null: scalars(arrayDomains, true),
    arrays: arrays(types, false),
    arrays_not_null: arrays(types, true),
    odd_arrays: ODD_ARRAYS,
  };
  const create = Object.entries(tables).map(([name, table]) => createTable(name, table));
  const insert = (firstId: number): string =>
    Object.entries(tables)
      .map(([name, table]) => insertRows(name, table, firstId))
      .join('\n');
  const world = await startPipeline(
    t,
    [...extensions.map(name => `CREATE EXTENSION ${name};`), TYPES_SQL, ...create, insert(0)].join('\n'),
  );
  await world.caughtUp();
  await world.pg.query(insert(STREAMED));
  await world.caughtUp();
  const schemas = await captured(world);
  // COPY's bytes as they are, but where there is an array.
  for (const {columns, name} of schemas)
    t.is(
      columns.every(({stored}) => stored.copy !== undefined),
      name.startsWith('public.scalars'),
      name,
    );
  t.deepEqual(wentByEncoder(world), []);
  const check = async (): Promise<void> => {
    for (const table of schemas) t.deepEqual((await compare(world, table)).wrong, []);
  };
  await check();
  for (const table of schemas) {
    // No sample is one that has no place: NULL for it would be equal on both sides.
    const {rows: sent} = tables[table.definition.table]!;
    const given = sent.length + sent.flat().filter(value => value !== 'NULL').length;
    t.is((await compare(world, table)).values, 2 * given, table.name);
  }
  await world.pg.query(
    Object.keys(tables)
      .map(name => `UPDATE ${name} SET touched = id;`)
      .join('\n'),
  );
  await world.caughtUp();
  await check();
  t.deepEqual(await world.query('SELECT * FROM {cdc}._rejects'), []);
});

/** A column of texts comes first, and in its first row what an input format may take for something else. */
const FIRST_TEXTS = [
  't',
  '\\N',
  '',
  '\ufeffbom',
  '\ufeff',
  'NULL',
  'String',
  '\\.',
  'end\r',
  '\r',
  "it's",
  '\\x41',
  '\\0',
];
test('texts that the first field of a file can be mistaken for arrive as they are', async t => {
  const tables = FIRST_TEXTS.map(
    (text, i) =>
      `CREATE TABLE f${i} (t text PRIMARY KEY, u text); INSERT INTO f${i} VALUES (${pgLiteral(text)}, 'u');`,
  );
  const world = await startPipeline(t, tables.join('\n'));
  await world.caughtUp();
  for (const [i, text] of FIRST_TEXTS.entries())
    t.deepEqual(await world.query(`SELECT * FROM {an}.f${i}`), [{t: text, u: 'u'}]);
  t.deepEqual(wentByEncoder(world), []);
});

const wentByEncoder = ({log}: World): string[] =>
  log.lines.filter(line => line.includes('a chunk goes by the encoder'));

/** Values that ClickHouse has no place for. */
const UNFIT: Readonly<Record<string, readonly string[]>> = {
  date: ['infinity', '-infinity', '1899-12-31', '2300-01-01', '0044-03-15 BC', '10000-01-01'],
  timestamp: [
    'infinity',
    '-infinity',
    '1899-12-31 23:59:59.999999',
    '2300-01-01',
    '4713-01-01 BC',
    '294276-12-31 23:59:59',
  ],
  timestamptz: [
    'infinity',
    '-infinity',
    '1900-01-01 00:59:59+01',
    '2299-12-31 23:00:00-01',
    '0001-01-31 BC',
    '294276-12-31',
  ],
  'numeric(10,2)': ['NaN'],
  'date[]': ['{2024-01-01,infinity}', '{1899-12-31}'],
  'numeric(10,2)[]': ['{1.00,NaN}'],
  'int[]': ['{{1,2},{3,4}}'],
};

const unfit = test.macro(async (t, unfitTypes: readonly (readonly [string, readonly string[]])[]) => {
  const types = unfitTypes.map(([sql, samples]) => ({sql, samples}));
  const table = scalars(types, false);
  const world = await startPipeline(t, createTable('unfit', table) + insertRows('unfit', table, 0));
  await world.caughtUp();
  await world.pg.query(insertRows('unfit', table, STREAMED));
  await world.caughtUp();
  const [schema] = await captured(world);
  t.deepEqual(await compare(world, schema!), {wrong: [], values: 2 * table.rows.length});
  const recorded = async (where: string): Promise<unknown[]> =>
    world.query(
      `SELECT DISTINCT toUInt32OrZero(extract(key, '\\\\d+')) % ${STREAMED} AS id, column_name, value, reason != '' AS why
       FROM {cdc}._rejects WHERE toUInt32OrZero(extract(key, '\\\\d+')) ${where} ORDER BY ALL`,
    );
  const bySnapshot = await recorded(`< ${STREAMED}`);
  t.deepEqual(await recorded(`>= ${STREAMED}`), bySnapshot);
  const sent = await world.pg.query<Record<string, string | null>>({
    text: `SELECT ${types.map(({sql}, i) => `${pgName(`${i} ${sql}`)}::text`).join(', ')} FROM unfit WHERE id < ${STREAMED}`,
  });
  t.is(
    bySnapshot.length,
    sent.rows.flatMap(row => Object.values(row).filter(value => value !== null)).length,
  );
  t.deepEqual(
    bySnapshot
      .filter(row => (row as {column_name: string}).column_name === '0 date')
      .map(row => (row as {value: string}).value),
    types[0]!.sql === 'date' ? UNFIT.date : [],
  );
  t.deepEqual(wentByEncoder(world), []);
});

const isArray = ([type]: readonly [string, unknown]): boolean => type.endsWith('[]');
for (const [what, types] of [
  ['a value', Object.entries(UNFIT).filter(type => !isArray(type))],
  ['an array', Object.entries(UNFIT).filter(isArray)],
] as const)
  test(
    `T3 T6 T9 ${what} that ClickHouse cannot hold is NULL and recorded, the same by snapshot and by stream`,
    unfit,
    types,
  );

test('T3 a NOT NULL column is no place for NULL: in the stream its table is parked, the others go on', async t => {
  const {
    pg: source,
    query,
    caughtUp,
  } = await startPipeline(
    t,
    'CREATE TABLE strict (id int PRIMARY KEY, d date NOT NULL); CREATE TABLE other (id int PRIMARY KEY)',
  );
  await caughtUp();
  await source.query("INSERT INTO strict VALUES (1, 'infinity')");
  await t.throwsAsync(caughtUp(), {code: 'ch.rejected', message: /public\.strict is parked: .*\bd\b.*1900/});
  await source.query('INSERT INTO other VALUES (1)');
  while ((await query('SELECT id FROM {an}.other')).length === 0);
  t.deepEqual(await query('SELECT d FROM {cdc}.public__strict'), []);
});

test('T3 a NOT NULL column is no place for NULL: in a snapshot its table is parked, the others are read', async t => {
  const {caughtUp, query} = await startPipeline(
    t,
    `CREATE TABLE strict (id int PRIMARY KEY, n numeric(5,1)[] NOT NULL); INSERT INTO strict VALUES (1, '{NaN}');
     CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (7)`,
  );
  await t.throwsAsync(caughtUp(), {
    code: 'ch.rejected',
    message: /public\.strict is parked: .*public\.strict\.n /,
  });
  t.deepEqual(await query('SELECT * FROM {an}.other'), [{id: 7}]);
  await t.throwsAsync(query('SELECT * FROM {an}.strict'), {message: /strict/});
});
