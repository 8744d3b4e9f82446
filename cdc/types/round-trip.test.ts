import test, {type ExecutionContext} from 'ava';
import pg from 'pg';
import {z} from 'zod';
import {chName, rows} from '../sink/clickhouse.ts';
import {targetTable} from '../sink/target.ts';
import {clientConfig, withClient} from '../source/postgres.ts';
import {pgLiteral, pgName, type TableSchema} from '../source/table-schema.ts';
import {planTables} from '../source/tables.ts';
import {server, startPipeline, type World} from '../test-support/start-pipeline.ts';
import {TYPES} from './types.ts';

const nines = (count: number): string => '9'.repeat(count);

/** What is not a row of TYPES by its own name: a type as SQL has it, and its samples. */
const VARIANTS: Readonly<Record<string, readonly string[]>> = {
  numeric: [
    '0',
    '-1.50',
    'NaN',
    'Infinity',
    '-Infinity',
    '1e1000',
    `${nines(38)}.${nines(38)}`,
    `-${nines(39)}`,
    `0.${nines(39)}`,
  ],
  'numeric(10,2)': ['0', '-0.01', '99999999.99', '1.5'],
  'numeric(38,10)': [`${nines(28)}.${nines(10)}`, '0.0000000001'],
  'numeric(76,0)': [nines(76), `-${nines(76)}`],
  'numeric(76,38)': [`${nines(38)}.${nines(38)}`, `-${nines(38)}.${nines(38)}`],
  'numeric(76,76)': [`0.${nines(76)}`, `-0.${nines(76)}`],
  'numeric(96,48)': [`${nines(48)}.${nines(48)}`, 'NaN'],
  'numeric(5,-2)': ['12300', '-9999900'],
  'numeric(2,5)': ['0.00012'],
  'char(5)': ['ab', ''],
  'varchar(3)': ['abc'],
  'bit(4)': ['1010'],
  'timestamp(0)': ['2024-02-29 12:34:56'],
  'timestamptz(3)': ['2024-02-29 12:34:56.789+02'],
  mood: ['sad', "it's", 'NULL', 'naïve "q"'],
  positive: ['1', '2147483647'],
  very_positive: ['7'],
  money_amount: ['12.34'],
  pair: ['(1,a)', '(,)', '("-1","q""x, y")'],
  int4range: ['[1,5)', 'empty', '(,3)'],
  int4multirange: ['{}', '{[1,3),[5,8)}'],
  tstzrange: ['["2024-01-01 00:00:00+00",)'],
};

const TYPES_SQL = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s', 'NULL', 'naïve "q"');
  CREATE DOMAIN positive AS int CHECK (VALUE > 0);
  CREATE DOMAIN very_positive AS positive CHECK (VALUE > 5);
  CREATE DOMAIN money_amount AS numeric(12,3);
  CREATE TYPE pair AS (a int, b text);`;

/** Types that come with an extension of the same name. */
const EXTENSIONS = ['citext', 'hstore', 'ltree', 'vector'];

interface TypeUnderTest {
  readonly sql: string;
  readonly samples: readonly string[];
}

/** Every row of TYPES and every variant; extensions that this server has not are said. */
async function typesUnderTest(t: ExecutionContext): Promise<{types: TypeUnderTest[]; extensions: string[]}> {
  const client = new pg.Client(server('TEST_PG_URL'));
  await client.connect();
  const {rows: found} = await client.query<{name: string}>('SELECT name FROM pg_available_extensions');
  await client.end();
  const extensions = EXTENSIONS.filter(name => found.some(row => row.name === name));
  const missing = EXTENSIONS.filter(name => !extensions.includes(name));
  if (missing.length > 0) t.log(`not tried, for this server has no such extension: ${missing.join(', ')}`);
  const own = Object.entries(TYPES)
    .filter(([name]) => !missing.includes(name))
    .map(([name, {samples}]) => ({sql: name === 'char' ? '"char"' : name, samples}));
  return {
    types: [...own, ...Object.entries(VARIANTS).map(([sql, samples]) => ({sql, samples}))],
    extensions,
  };
}

const literal = (type: string, sample: string | null | undefined): string =>
  sample === null || sample === undefined ? 'NULL' : `${pgLiteral(sample)}::${type}`;
const arrayOf = ({sql}: TypeUnderTest, values: readonly (string | null)[]): string =>
  `ARRAY[${values.map(value => literal(sql, value)).join(', ')}]::${sql}[]`;

/** Tables by name, each with its columns' types and rows of SQL expressions, the id left out. */
interface TableUnderTest {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

function scalars(types: readonly TypeUnderTest[], notNull: boolean): TableUnderTest {
  const count = Math.max(...types.map(({samples}) => samples.length));
  return {
    columns: types.map(({sql}) => `${sql}${notNull ? ' NOT NULL' : ''}`),
    rows: Array.from({length: notNull ? count : count + 1}, (_, i) =>
      types.map(({sql, samples}) => literal(sql, notNull ? samples[i % samples.length] : samples[i])),
    ),
  };
}

function arrays(types: readonly TypeUnderTest[], notNull: boolean): TableUnderTest {
  const values: ((type: TypeUnderTest) => string)[] = [
    type => arrayOf(type, type.samples),
    type => arrayOf(type, [null, type.samples[0]!, null]),
    type => arrayOf(type, [null]),
    type => arrayOf(type, []),
    type => arrayOf(type, [type.samples[0]!]),
    ...(notNull ? [] : [() => 'NULL']),
  ];
  return {
    columns: types.map(({sql}) => `${sql}[]${notNull ? ' NOT NULL' : ''}`),
    rows: values.map(value => types.map(value)),
  };
}

/** Texts that look like the syntax around them. */
const ODD_ARRAYS: TableUnderTest = {
  columns: ['text[]', 'int[]', 'box[]', 'int[] NOT NULL'],
  rows: [
    [`'{"NULL",null,""}'`, `'[0:1]={1,2}'`, `'{(1,1),(0,0);(2,2),(0,0)}'`, `'[5:5]={7}'`],
    [String.raw`'{"a,b","q\"x","back\\slash","{","}"," sp "}'`, `'{1,NULL,3}'`, `'{}'`, `'{}'`],
    [String.raw`ARRAY['\N', E'tab\tnl\n', '漢字', 'null', 'NULL']`, `'{}'`, 'NULL', `'{-1,NULL}'`],
  ],
};

/** Values are kept out of line where they can be, so that an update that leaves them alone does not send them. */
const createTable = (name: string, {columns}: TableUnderTest): string =>
  `CREATE TABLE ${name} (id int PRIMARY KEY, ${columns.map((type, i) => `${pgName(`${i} ${type}`)} ${type}`).join(', ')}, touched int)
   WITH (toast_tuple_target = 128);
   DO $$ DECLARE alter text; BEGIN
     SELECT string_agg(format('ALTER COLUMN %I SET STORAGE EXTERNAL', attname), ', ') INTO alter
     FROM pg_attribute WHERE attrelid = '${name}'::regclass AND attnum > 0 AND attstorage <> 'p';
     EXECUTE 'ALTER TABLE ${name} ' || alter;
   END $$;`;
const insertRows = (name: string, {rows: values}: TableUnderTest, firstId: number): string =>
  `INSERT INTO ${name} VALUES ${values.map((row, i) => `(${[firstId + i, ...row].join(', ')})`).join(', ')};`;

const STREAMED = 1000;
const Texts = z.array(z.string().nullable());

/** Each column's text in both servers, a line for each value that is not the same; and how many values there were. */
async function compare(
  {settings, ch}: World,
  table: TableSchema,
): Promise<{wrong: string[]; values: number}> {
  const {definition, columns} = table;
  const pgTexts = columns.map(({name, stored}) => stored.pgText(pgName(name)));
  const chTexts = columns.map(({name, stored}) => stored.chText(chName(name)));
  const source = await withClient(clientConfig(settings), client =>
    client.query<{texts: unknown}>(
      `SELECT ARRAY[${pgTexts.join(', ')}] AS texts FROM ${pgName(definition.schema, definition.table)} ORDER BY id`,
    ),
  );
  const target = await rows(
    ch,
    z.object({texts: Texts}),
    `SELECT [${chTexts.join(', ')}] AS texts FROM ${targetTable(settings, table)} FINAL WHERE _is_deleted = 0 ORDER BY id`,
  );
  const wrong: string[] = [];
  let values = 0;
  source.rows.forEach((row, r) => {
    const texts = Texts.parse(row.texts);
    texts.forEach((text, c) => {
      if (text !== null) values++;
      const stored = target[r]?.texts[c];
      if (stored !== text)
        wrong.push(
          `${table.name} row ${texts[0]} column ${columns[c]!.name}: ${text} in PostgreSQL, ${stored} in ClickHouse`,
        );
    });
  });
  if (target.length !== source.rows.length) wrong.push(`${table.name}: ${target.length} rows`);
  return {wrong, values};
}

async function captured({settings}: World): Promise<TableSchema[]> {
  const plan = await withClient(clientConfig(settings), client => planTables(client, settings, 180_000));
  return plan.captured.map(table => table.schema);
}

test('every sample of every type arrives as it is, by snapshot and by stream', async t => {
  const {types, extensions} = await typesUnderTest(t);
  const tables: Readonly<Record<string, TableUnderTest>> = {
    scalars: scalars(types, false),
    scalars_not_null: scalars(types, true),
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

test('what ClickHouse cannot hold is NULL and recorded, the same by snapshot and by stream', async t => {
  const types = Object.entries(UNFIT).map(([sql, samples]) => ({sql, samples}));
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
    ['infinity', '-infinity', '1899-12-31', '2300-01-01', '0044-03-15 BC', '10000-01-01'],
  );
});

test('a NOT NULL column is no place for NULL: in the stream its table is parked, the others go on', async t => {
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

test('a NOT NULL column is no place for NULL: a snapshot is refused', async t => {
  const {ended} = await startPipeline(
    t,
    "CREATE TABLE strict (id int PRIMARY KEY, n numeric(5,1)[] NOT NULL); INSERT INTO strict VALUES (1, '{NaN}')",
  );
  const error = await ended();
  t.is((error as {code?: string}).code, 'value.unrepresentable');
  t.regex(String(error), /public\.strict\.n /);
});
