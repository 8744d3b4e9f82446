import type {ExecutionContext} from 'ava';
import pg from 'pg';
import {pgLiteral, pgName} from '../../source/table-schema.ts';
import {server} from '../../test-support/start-pipeline.ts';
import {TYPES} from '../types.ts';

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

export const TYPES_SQL = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s', 'NULL', 'naïve "q"');
  CREATE DOMAIN positive AS int CHECK (VALUE > 0);
  CREATE DOMAIN very_positive AS positive CHECK (VALUE > 5);
  CREATE DOMAIN money_amount AS numeric(12,3);
  CREATE TYPE pair AS (a int, b text);`;

/** Types that come with an extension of the same name. */
const EXTENSIONS = ['citext', 'hstore', 'ltree', 'vector'];

export interface TypeUnderTest {
  readonly sql: string;
  readonly samples: readonly string[];
}

/** Every row of TYPES and every variant; extensions that this server has not are said. */
export async function typesUnderTest(
  t: ExecutionContext,
): Promise<{types: TypeUnderTest[]; extensions: string[]}> {
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
export interface TableUnderTest {
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

export function scalars(types: readonly TypeUnderTest[], notNull: boolean): TableUnderTest {
  const count = Math.max(...types.map(({samples}) => samples.length));
  return {
    columns: types.map(({sql}) => `${sql}${notNull ? ' NOT NULL' : ''}`),
    rows: Array.from({length: notNull ? count : count + 1}, (_, i) =>
      types.map(({sql, samples}) => literal(sql, notNull ? samples[i % samples.length] : samples[i])),
    ),
  };
}

export function arrays(types: readonly TypeUnderTest[], notNull: boolean): TableUnderTest {
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
export const ODD_ARRAYS: TableUnderTest = {
  columns: ['text[]', 'int[]', 'box[]', 'int[] NOT NULL'],
  rows: [
    [`'{"NULL",null,""}'`, `'[0:1]={1,2}'`, `'{(1,1),(0,0);(2,2),(0,0)}'`, `'[5:5]={7}'`],
    [String.raw`'{"a,b","q\"x","back\\slash","{","}"," sp "}'`, `'{1,NULL,3}'`, `'{}'`, `'{}'`],
    [String.raw`ARRAY['\N', E'tab\tnl\n', '漢字', 'null', 'NULL']`, `'{}'`, 'NULL', `'{-1,NULL}'`],
  ],
};

/** Values are kept out of line where they can be, so that an update that leaves them alone does not send them. */
export const createTable = (name: string, {columns}: TableUnderTest): string =>
  `CREATE TABLE ${name} (id int PRIMARY KEY, ${columns.map((type, i) => `${pgName(`${i} ${type}`)} ${type}`).join(', ')}, touched int)
   WITH (toast_tuple_target = 128);
   DO $$ DECLARE alter text; BEGIN
     SELECT string_agg(format('ALTER COLUMN %I SET STORAGE EXTERNAL', attname), ', ') INTO alter
     FROM pg_attribute WHERE attrelid = '${name}'::regclass AND attnum > 0 AND attstorage <> 'p';
     EXECUTE 'ALTER TABLE ${name} ' || alter;
   END $$;`;
export const insertRows = (name: string, {rows: values}: TableUnderTest, firstId: number): string =>
  `INSERT INTO ${name} VALUES ${values.map((row, i) => `(${[firstId + i, ...row].join(', ')})`).join(', ')};`;
