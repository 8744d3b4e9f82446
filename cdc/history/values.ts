import {pgLiteral} from '../source/table-schema.ts';
import type {Column} from './catalog.ts';

/** Types that columns get, as SQL has them; the first are the plainest. */
export const COLUMN_TYPES = [
  'int4',
  'text',
  'numeric(12,3)',
  'timestamptz',
  'jsonb',
  'bool',
  'int8',
  'int2',
  'float8',
  'float4',
  'uuid',
  'date',
  'timestamp',
  'bytea',
  'varchar(40)',
  'char(6)',
  'json',
  'numeric',
  'numeric(30,10)',
  'numeric(76,38)',
  'mood',
  'few',
  'pair',
  'int4[]',
  'text[]',
  'numeric(9,2)[]',
  'timestamptz[]',
  'mood[]',
  'oid',
  'time',
  'timetz',
  'interval',
  'money',
  'bit(3)',
  'varbit',
  'inet',
  'cidr',
  'macaddr',
  'point',
  'tsvector',
  'int4range',
  'int4multirange',
  'name',
  '"char"',
] as const;

/** Types that a key column gets. */
export const KEY_TYPES = [
  'int8',
  'text',
  'uuid',
  'numeric',
  'numeric(14,3)',
  'timestamptz',
  'int4',
  'varchar(60)',
] as const;

export const TYPES_SQL = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s', 'NULL', 'naïve "q"');
  CREATE DOMAIN few AS int CHECK (VALUE >= 0);
  CREATE TYPE pair AS (a int, b text);`;

/** Values by type, as texts. */
const SAMPLES: Readonly<Record<string, readonly string[]>> = {
  bool: ['t', 'f'],
  oid: ['0', '4000000000', '17'],
  float4: ['0', '-0', '1.17549435e-38', '3.4028235e+38', '0.1', 'NaN', 'Infinity', '-Infinity'],
  float8: ['-0', '1e-308', '5e-324', '1.7976931348623157e+308', '0.1', 'NaN', 'Infinity', '-Infinity'],
  date: ['1900-01-01', '1969-12-31', '1970-01-01', '2000-02-29', '2299-12-31'],
  timestamp: [
    '1900-01-01 00:00:00',
    '1969-12-31 23:59:59.999999',
    '1970-01-01 00:00:00.00002',
    '2024-02-29 12:34:56.1',
    '2299-12-31 23:59:59.999999',
  ],
  timestamptz: [
    '1900-01-01 00:00:00+00',
    '1969-12-31 23:59:59.999999+00',
    '2020-03-01 12:00:00.123456+05:30',
    '2299-12-31 23:59:59.999999+00',
  ],
  bytea: ['', '\\x00', '\\x3031ff7f'],
  json: ['null', '{"a":1,"a":2}', '[1e400, 12345678901234567890123]', '"text"'],
  jsonb: ['null', '{"a": {"b": [1, "x\\"y"]}}', '12345678901234567890123.5'],
  time: ['00:00:00', '24:00:00', '00:00:00.000249'],
  timetz: ['23:59:59.999999+00', '24:00:00+00'],
  interval: ['1 year 2 mon 3 day 04:05:06.78', '-1 year +2 mon -3 day', '0'],
  money: ['1234.56', '-0.01'],
  varbit: ['', '10101'],
  inet: ['192.168.2.0/12', '::1'],
  cidr: ['10.0.0.0/8'],
  macaddr: ['08:00:2b:01:02:03'],
  point: ['(1,2.5)', '(-0,1e300)'],
  tsvector: ["'a' 'b':2", ''],
  char: ['a', 'Z'],
  // What a CHECK or a length would refuse has no place here.
  bpchar: ['ab', '', 'x y'],
  varchar: ['', 'x', 'naïve 漢字 🌊'],
  name: ['pg_class', 'b'],
  bit: ['101', '000'],
  pair: ['(1,a)', '(,)', '("-1","q""x, y")'],
  int4range: ['[1,5)', 'empty', '(,3)'],
  int4multirange: ['{}', '{[1,3),[5,8)}'],
  text: [
    '',
    'NULL',
    '\\N',
    'value\\Ntail',
    'tab\tline\nquote"back\\slash\rCR',
    'naïve 漢字 🌊',
    '\u0001\u001f',
    '__debezium_unavailable_value',
    ',"after":{"id":1}',
  ],
};
/** In a column that may be NULL: what ClickHouse has no place for. */
const WITHOUT_PLACE: Readonly<Record<string, readonly string[]>> = {
  date: ['infinity', '0044-03-15 BC', '2300-01-01'],
  timestamp: ['-infinity', '1899-12-31 23:59:59'],
  timestamptz: ['infinity', '5000-01-01 00:00:00+00'],
};

/** An expression whose values follow from `x`, an expression of type bigint that is not negative. */
export function valueSql({base, type, notNull, external}: Column, x: string): string {
  const value = base.array ? arraySql(base.name, type, x) : scalarSql(base, type, external, x);
  return notNull
    ? value
    : `CASE WHEN ((${x}) * 13) % 5 = 0 THEN NULL ELSE ${placeless(base, type, x, value)} END`;
}

function placeless({name, array}: Column['base'], type: string, x: string, value: string): string {
  const odd = array ? undefined : WITHOUT_PLACE[name];
  return odd ? `CASE WHEN (${x}) % 29 = 7 THEN ${oneOf(odd, type, x)} ELSE ${value} END` : value;
}

/** Large values are as they are in the log, and out of line: PostgreSQL does not send them again. */
const LARGE: Readonly<Record<string, (x: string) => string>> = {
  text: x => `repeat(md5((${x})::text), 66 + ((${x}) % 12)::int)`,
  jsonb: x => `jsonb_build_object('n', ${x}, 'long', repeat(md5((${x})::text), 66))`,
  json: x => `json_build_object('n', ${x}, 'long', repeat(md5((${x})::text), 66))`,
  bytea: x => `decode(repeat(md5((${x})::text), 132), 'hex')`,
};

function scalarSql(
  {name, kind, modifier}: Column['base'],
  type: string,
  external: boolean,
  x: string,
): string {
  if (kind === 'e') {
    return `(enum_range(NULL::${type}))[1 + (${x}) % array_length(enum_range(NULL::${type}), 1)]`;
  }
  const large = external ? LARGE[name] : undefined;
  if (large) return `CASE WHEN (${x}) % 3 = 0 THEN ${sample(name, type, x)} ELSE ${large(x)} END`;
  switch (name) {
    case 'int2':
      return `((${x}) * 7919 % 60000 - 30000)::int2`;
    case 'int4':
      return `((${x}) * 7919 % 2000000)::${type}`;
    case 'int8':
      return `((${x}) * 1000003 - 900000000000)::int8`;
    case 'text':
      return `CASE WHEN (${x}) % 4 = 0 THEN ${sample(name, type, x)} ELSE 'v' || (${x}) END`;
    case 'uuid':
      return `md5((${x})::text)::uuid`;
    case 'timestamptz':
      return `CASE WHEN (${x}) % 4 = 0 THEN ${sample(name, type, x)} ELSE '2024-02-29 12:00:00+00'::timestamptz + (${x}) * interval '1.234567 seconds' END`;
    case 'numeric':
      return modifier < 0
        ? `CASE WHEN (${x}) % 3 = 0 THEN ${oneOf(TYPES_OF_NUMERIC, type, x)} ELSE (${x}) * 1.0625 END`
        : `((${x}) % 9999 * 1.001)::${type}`;
    default:
      return sample(name, type, x);
  }
}

const TYPES_OF_NUMERIC = [
  '0',
  '-1.50',
  'NaN',
  'Infinity',
  `${'9'.repeat(38)}.${'9'.repeat(38)}`,
  `0.${'9'.repeat(39)}`,
];

function sample(name: string, type: string, x: string): string {
  const samples = SAMPLES[name];
  if (!samples) throw new Error(`no samples for ${name}`);
  return oneOf(samples, type, x);
}

const oneOf = (samples: readonly string[], type: string, x: string): string =>
  `((ARRAY[${samples.map(pgLiteral).join(', ')}])[1 + (${x}) % ${samples.length}])::${type}`;

const ARRAYS: Readonly<Record<string, readonly string[]>> = {
  int4: ['{1,NULL,3}', '{}', '[0:1]={1,2}', '{-5}'],
  text: ['{a,NULL,c}', '{""}', '{"a,b","q\\"x","back\\\\slash"}', '{"NULL"}', '{}'],
  numeric: ['{1.5,NULL}', '{}', '{-0.01,99.99}'],
  timestamptz: ['{"2024-01-01 00:00:00+00",NULL}', '{}'],
  mood: ["{sad,NULL,it's}", '{"NULL"}', '{}'],
};
const arraySql = (name: string, type: string, x: string): string => oneOf(ARRAYS[name] ?? ['{}'], type, x);

/** An expression that has another value for each `n` (type bigint, not negative): for key columns. */
export function keySql({base, type}: Column, n: string): string {
  switch (base.name) {
    case 'text':
    case 'varchar':
      return `('k"\\ ' || (${n}))::${type}`;
    case 'uuid':
      return `lpad(to_hex(${n}), 32, '0')::uuid`;
    case 'timestamptz':
      return `('2024-01-01 00:00:00+00'::timestamptz + (${n}) * interval '1.000001 seconds')`;
    case 'numeric':
      return base.modifier < 0 ? `((${n}) * 1.50)` : `((${n}) * 0.5)::${type}`;
    default:
      return `(${n})::${type}`;
  }
}

/** The key of a row, moved by a whole number; keys that differ stay different. */
export function movedSql({base, type}: Column, column: string, by: number): string {
  switch (base.name) {
    case 'text':
    case 'varchar':
      return `(left(${column}, 30) || '~' || md5(${column} || ${by}))::${type}`;
    case 'uuid':
      return `md5(${column}::text || ${by})::uuid`;
    case 'timestamptz':
      return `${column} + ${by} * interval '1.000001 seconds'`;
    case 'numeric':
      return `${column} + ${by} * 0.5`;
    default:
      return `${column} + ${by}`;
  }
}
