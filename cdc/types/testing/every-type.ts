import type {ExecutionContext} from 'ava';
import pg from 'pg';
import {pgLiteral, pgName} from '../../source/table-schema.ts';
import {server} from '../../test-support/start-pipeline.ts';
import {BUILT_IN_TYPES} from '../built-in.ts';
import {EXTENSION_TYPES} from '../extensions.ts';

const nines = (count: number): string => '9'.repeat(count);

/** What is not a row of TYPES by its own name: a type as SQL has it, and its samples. */
const VARIANTS: Readonly<Record<string, readonly string[]>> = {
  numeric: [
    '0',
    '-1.50',
    '0.00',
    'NaN',
    'Infinity',
    '-Infinity',
    '1e1000',
    '-1e-1000',
    `${nines(38)}.${nines(38)}`,
    `-${nines(39)}`,
    `0.${nines(39)}`,
  ],
  'numeric(10,2)': ['0', '-0.01', '99999999.99', '1.5'],
  'numeric(38,10)': [`${nines(28)}.${nines(10)}`, '0.0000000001'],
  'numeric(76,0)': [nines(76), `-${nines(76)}`],
  'numeric(76,38)': [`${nines(38)}.${nines(38)}`, `-${nines(38)}.${nines(38)}`],
  'numeric(76,76)': [`0.${nines(76)}`, `-0.${nines(76)}`],
  'numeric(77,1)': [`${nines(76)}.9`, 'NaN'],
  'numeric(96,48)': [`${nines(48)}.${nines(48)}`, 'NaN'],
  'char(5)': ['ab', '', 'NULL'],
  'varchar(3)': ['abc'],
  'bit(4)': ['1010'],
  'timestamp(0)': ['2024-02-29 12:34:56.5'],
  'timestamptz(3)': ['2024-02-29 12:34:56.789+02'],
  'time(2)': ['23:59:59.999'],
  'interval day to second(0)': ['1 day 2:03:04.6'],
  mood: ['sad', "it's", 'NULL', 'naïve "q"', ''],
  positive: ['1', '2147483647'],
  very_positive: ['7'],
  money_amount: ['12.34'],
  feeling: ['sad'],
  two: ['(1,a)', '("-1","q""x, y")'],
  pair: ['(1,a)', '(,)', '("-1","q""x, y")', '(,"")'],
  nest: [
    String.raw`("(1,""a """"b"""" \\\\N"")","{NULL,sad,""it's""}","2024-02-29 12:00:00+05:30",)`,
    '(,,,)',
    '(,{},,1.50)',
  ],
  int4range: ['[1,5)', 'empty', '(,3)'],
  int8range: ['[-9223372036854775808,9223372036854775806]'],
  numrange: ['(1.50,NaN]', '(,)'],
  daterange: ['[0044-03-15 BC,infinity)', '[2024-01-01,2024-01-31]'],
  tsrange: ['["2024-01-01 00:00:00.000001",infinity]'],
  tstzrange: ['["2024-01-01 00:00:00+05:30",)'],
  int4multirange: ['{}', '{[1,3),[5,8)}'],
  int8multirange: ['{(,1),[5,)}'],
  nummultirange: ['{[1.5,2.50)}'],
  datemultirange: ['{[2024-01-01,2024-02-01),[2025-01-01,)}'],
  tsmultirange: ['{["2024-01-01 00:00:00","2024-02-01 00:00:00")}'],
  tstzmultirange: ['{["2024-01-01 00:00:00+05:30",)}'],
  'public.date': ['never', '2024-01-01'],
  'public.uuid': ['(1,)'],
  'public.numeric': ['[1,5)'],
  'public.bytea': ['12'],
  words: ['["a,b","c""d")', 'empty'],
  words_multirange: ['{["a,b","c""d")}'],
};

/** Since a version of the server, as its number. */
const SINCE: readonly (readonly [number, Readonly<Record<string, readonly string[]>>])[] = [
  [
    150_000,
    {
      'numeric(5,-2)': ['12300', '-9999900', '0'],
      'numeric(2,5)': ['0.00012', '-0.00099'],
      'numeric(3,-73)': [`999${'0'.repeat(73)}`],
      'numeric(3,-74)': [`999${'0'.repeat(74)}`, 'NaN'],
      'numeric(1,76)': [`0.${'0'.repeat(75)}9`],
      'numeric(1,77)': [`-0.${'0'.repeat(76)}9`],
    },
  ],
  [170_000, {'interval second': ['infinity', '-infinity', '1.5']}],
];

/** Names of columns' types that are domains over arrays: no array is made of them. */
const ARRAY_DOMAINS: Readonly<Record<string, readonly string[]>> = {
  labels: ['{a,NULL,"b,c"}', '{}'],
  short_labels: ['{a}'],
  moods: ['{sad,NULL,"it\'s"}'],
};

export const TYPES_SQL = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s', 'NULL', 'naïve "q"', '');
  CREATE DOMAIN positive AS int CHECK (VALUE > 0);
  CREATE DOMAIN very_positive AS positive CHECK (VALUE > 5);
  CREATE DOMAIN money_amount AS numeric(12,3);
  CREATE DOMAIN feeling AS mood;
  CREATE TYPE pair AS (a int, b text);
  CREATE DOMAIN two AS pair CHECK ((VALUE).a <> 0);
  CREATE TYPE nest AS (p pair, moods mood[], at timestamptz, n numeric(5,2));
  CREATE TYPE words AS RANGE (subtype = text, multirange_type_name = words_multirange);
  -- Names of PostgreSQL's own types, which other kinds of type may have.
  CREATE TYPE public.date AS ENUM ('never', '2024-01-01');
  CREATE TYPE public.uuid AS (a int, b public.date);
  CREATE TYPE public.numeric AS RANGE (subtype = int8, multirange_type_name = numeric_multirange);
  CREATE DOMAIN public.bytea AS int;
  CREATE DOMAIN labels AS text[];
  CREATE DOMAIN short_labels AS labels CHECK (cardinality(VALUE) < 3);
  CREATE DOMAIN moods AS feeling[];`;

export interface TypeUnderTest {
  readonly sql: string;
  readonly samples: readonly string[];
}

/** Every row of TYPES and every variant; extensions that this server has not are said. */
export async function typesUnderTest(
  t: ExecutionContext,
): Promise<{types: TypeUnderTest[]; arrayDomains: TypeUnderTest[]; extensions: string[]}> {
  const client = new pg.Client(server('TEST_PG_URL'));
  await client.connect();
  const {rows: found} = await client.query<{name: string; version: number}>(
    "SELECT name, current_setting('server_version_num')::int AS version FROM pg_available_extensions",
  );
  await client.end();
  const wanted = Object.keys(EXTENSION_TYPES);
  const extensions = wanted.filter(name => found.some(row => row.name === name));
  const missing = wanted.filter(name => !extensions.includes(name));
  if (missing.length > 0) t.log(`not tried, for this server has no such extension: ${missing.join(', ')}`);
  const rows = [BUILT_IN_TYPES, ...extensions.map(name => EXTENSION_TYPES[name]!)].flatMap(types =>
    Object.entries(types).map(([name, {samples}]) => [name === 'char' ? '"char"' : name, samples] as const),
  );
  const variants = [[0, VARIANTS] as const, ...SINCE]
    .filter(([version]) => found.some(row => row.version >= version))
    .flatMap(([, types]) => Object.entries(types));
  const underTest = ([sql, samples]: readonly [string, readonly string[]]): TypeUnderTest => ({sql, samples});
  return {
    types: [...rows, ...variants].map(underTest),
    arrayDomains: Object.entries(ARRAY_DOMAINS).map(underTest),
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
