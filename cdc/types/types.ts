import {PipelineError} from '../failures.ts';
import {arrayColumn} from './array.ts';
import * as encode from './encode.ts';
import {isValue} from './framed.ts';

export interface WireForm {
  readonly type: string;
  readonly expr: (read: string) => string;
  readonly back: (stored: string) => string;
}

/** How one PostgreSQL type lives in ClickHouse. SQL functions take a quoted column name or an expression. */
export interface TypeMapping {
  /** The ClickHouse type, without NULL-ability; `modifier` is PostgreSQL's `atttypmod`. */
  readonly ch: string | ((modifier: number) => string);
  readonly encode: encode.Encoder;
  /** Where the wire holds something else than the column: the type read, the way from it, and back to it. */
  readonly input?: WireForm;
  /** The same for elements of a nullable array, where it is not `input`. */
  readonly variantInput?: WireForm;
  /** The value's text in PostgreSQL and in ClickHouse for `verify`; NULL where ClickHouse cannot hold the value. */
  readonly pgText?: (value: string) => string;
  readonly chText?: (value: string) => string;
  /** Literals that the round-trip test sends, as `'…'::type` needs them. */
  readonly samples: readonly string[];
}

/** PostgreSQL's output function, padding of char(n) included (a cast to text would strip it); `concat(NULL)` is ''. */
const output = (value: string): string => `CASE WHEN ${isValue(value)} THEN concat(${value}) END`;
const inYears = (value: string, text: string): string =>
  `CASE WHEN ${value} >= '1900-01-01' AND ${value} < '2300-01-01' THEN ${text} END`;

const integer = (ch: string, ...samples: string[]): TypeMapping => ({
  ch,
  encode: encode.number,
  chText: value => `toString(${value})`,
  samples,
});
const text = (...samples: string[]): TypeMapping => ({ch: 'String', encode: encode.string, samples});

const float = (bits: 32 | 64, ...samples: string[]): TypeMapping => ({
  ch: `Float${bits}`,
  encode: encode.float,
  pgText: value =>
    `CASE WHEN ${value} = 'NaN' THEN 'nan' ELSE encode(float${bits / 8}send(${value}), 'hex') END`,
  chText: value =>
    `if(isNaN(${value}), 'nan', lower(leftPad(hex(reinterpretAsUInt${bits}(${value})), ${bits / 4}, '0')))`,
  samples,
});

/** numeric's modifier packs precision and an 11-bit signed scale (PostgreSQL 15+), 4 added. -1 is none. */
export function precisionAndScale(modifier: number): {precision: number; scale: number} | undefined {
  if (modifier < 4) return undefined;
  const packed = modifier - 4;
  return {precision: (packed >> 16) & 0xffff, scale: ((packed & 0x7ff) ^ 1024) - 1024};
}

const DECIMAL_DIGITS = 76;
function decimalOf(modifier: number): {precision: number; scale: number} | undefined {
  const found = precisionAndScale(modifier);
  return found && found.precision <= DECIMAL_DIGITS && found.scale >= 0 && found.scale <= found.precision
    ? found
    : undefined;
}

/**
 * Every supported type: its column, its encoding, and the values its round-trip test sends. One encoder serves
 * snapshot and stream. A type without a row is refused; it does not become a String by default.
 */
export const TYPES: Readonly<Record<string, TypeMapping>> = {
  bool: {
    ch: 'Bool',
    encode: encode.bool,
    chText: value => `substring(toString(${value}), 1, 1)`,
    samples: ['t', 'f'],
  },
  int2: integer('Int16', '-32768', '32767'),
  int4: integer('Int32', '-2147483648', '2147483647'),
  int8: integer('Int64', '-9223372036854775808', '9223372036854775807'),
  oid: integer('UInt32', '0', '4000000000'),
  float4: float(32, '0', '-0', '1.17549435e-38', '3.4028235e+38', '0.1', 'NaN', 'Infinity', '-Infinity'),
  float8: float(
    64,
    '-0',
    '1e-308',
    '5e-324',
    '1.7976931348623157e+308',
    '0.1',
    'NaN',
    'Infinity',
    '-Infinity',
  ),
  uuid: {
    ch: 'UUID',
    encode: encode.string,
    chText: value => `toString(${value})`,
    samples: ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '00000000-0000-0000-0000-000000000000'],
  },
  date: {
    ch: 'Date32',
    encode: encode.date,
    pgText: value => inYears(value, `to_char(${value}, 'YYYY-MM-DD')`),
    chText: value => `toString(${value})`,
    samples: ['1900-01-01', '1969-12-31', '1970-01-01', '2000-02-29', '2299-12-31'],
  },
  timestamp: {
    // A time without a zone is shown as PostgreSQL shows it, whatever the zone of the ClickHouse server.
    ch: "DateTime64(6, 'UTC')",
    encode: encode.timestamp,
    pgText: value => inYears(value, `to_char(${value}, 'YYYY-MM-DD HH24:MI:SS.US')`),
    chText: value => `toString(${value}, 'UTC')`,
    samples: [
      '1900-01-01 00:00:00',
      '1969-12-31 23:59:59.999999',
      '1969-12-31 23:59:59',
      '1970-01-01 00:00:00',
      '1970-01-01 00:00:00.00002',
      '2024-02-29 12:34:56.1',
      '2299-12-31 23:59:59.999999',
    ],
  },
  timestamptz: {
    ch: "DateTime64(6, 'UTC')",
    encode: encode.timestamptz,
    pgText: value => inYears(value, `to_char(${value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`),
    chText: value => `toString(${value}, 'UTC')`,
    samples: [
      '1900-01-01 00:00:00+00',
      '1969-12-31 23:59:59.999999+00',
      '2020-03-01 12:00:00.123456+05:30',
      '2299-12-31 23:59:59.999999+00',
    ],
  },
  bytea: {
    ch: 'String',
    encode: encode.bytea,
    input: {type: 'String', expr: read => `base64Decode(${read})`, back: stored => `base64Encode(${stored})`},
    pgText: value => `encode(${value}, 'hex')`,
    chText: value => `lower(hex(${value}))`,
    samples: ['', '\\x00', '\\x3031ff7f', '\\xdeadbeef'],
  },
  text: text(
    '',
    'a',
    '\\N',
    'value\\Ntail',
    'tab\tline\nquote"back\\slash\rCR',
    'naïve 漢字 🌊',
    '\u0001\u001f',
  ),
  varchar: text('', 'x'),
  bpchar: text('a  ', ''),
  char: text('a'),
  name: text('pg_class'),
  citext: text('MiXed'),
  json: text('null', '{"a":1,"a":2}', '[1e400, 12345678901234567890123]', '"text"'),
  jsonb: text('null', '{"a": {"b": [1, "x\\"y"]}}', '12345678901234567890123.5'),
  xml: text('<a>1</a>'),
  time: text('00:00:00', '24:00:00', '00:00:00.000249'),
  timetz: text('23:59:59.999999+00', '24:00:00+00'),
  interval: text('1 year 2 mon 3 day 04:05:06.78', '-1 year +2 mon -3 day', '0'),
  money: text('1234.56', '-0.01'),
  bit: text('1', '0'),
  varbit: text('', '10101'),
  inet: text('192.168.2.0/12', '::1'),
  cidr: text('10.0.0.0/8'),
  macaddr: text('08:00:2b:01:02:03'),
  macaddr8: text('08:00:2b:01:02:03:04:05'),
  point: text('(1,2.5)'),
  line: text('{1,2,3}'),
  lseg: text('[(0,0),(1,1)]'),
  box: text('(1,1),(0,0)'),
  path: text('((0,0),(1,1))'),
  polygon: text('((0,0),(1,1),(1,0))'),
  circle: text('<(0,0),1>'),
  tsvector: text("'a' 'b':2"),
  tsquery: text("'a' & 'b'"),
  pg_lsn: text('16/B374D848'),
  hstore: text('"a"=>NULL, "b"=>"x"'),
  vector: text('[1,2.5]'),
  ltree: text('a.b'),
};

/** numeric has two mappings: Decimal where precision and scale allow it, otherwise PostgreSQL's text, exact. */
const NUMERIC_TEXT = text('0', '-1.5', 'NaN', `${'9'.repeat(38)}.${'9'.repeat(38)}`, `0.${'9'.repeat(39)}`);
const numericDecimal = ({precision, scale}: {precision: number; scale: number}): TypeMapping => ({
  ch: `Decimal(${precision}, ${scale})`,
  encode: encode.decimal,
  // No Decimal within a Variant is read from JSON (ClickHouse 26.7: "Cannot parse JSON value of type Variant").
  variantInput: {
    type: 'String',
    expr: read => `CAST(${read}, 'Nullable(Decimal(${precision}, ${scale}))')`,
    back: stored => `toDecimalString(${stored}, ${scale})`,
  },
  pgText: value => `CASE WHEN ${value} - ${value} = 0 THEN ${output(value)} END`,
  chText: value => `toDecimalString(${value}, ${scale})`,
  samples: [],
});

const ENUM: TypeMapping = {...text(), ch: 'LowCardinality(String)', chText: value => `toString(${value})`};
/** Kinds of type (`pg_type.typtype`) whose text is their value. */
const BY_KIND: Readonly<Record<string, TypeMapping>> = {e: ENUM, c: text(), r: text(), m: text()};

/** A column's type as the catalog has it, domains resolved to what is below them. */
export interface PgType {
  /** `pg_type.typname` of the base type (of the element, for an array). */
  readonly name: string;
  /** `pg_type.typtype` of it: b base, c composite, e enum, r range, m multirange. */
  readonly kind: string;
  readonly modifier: number;
  readonly array: boolean;
  readonly delimiter: string;
}

/** How a column is stored, read, written and compared. */
export interface ColumnType {
  readonly column: string;
  readonly encode: encode.Encoder;
  /** Undefined where ClickHouse reads the wire's value straight into the column. */
  readonly input: WireForm | undefined;
  readonly pgText: (value: string) => string;
  readonly chText: (value: string) => string;
}

function scalar(type: PgType): TypeMapping | undefined {
  if (type.name === 'numeric') {
    const decimal = decimalOf(type.modifier);
    return decimal ? numericDecimal(decimal) : NUMERIC_TEXT;
  }
  return TYPES[type.name] ?? BY_KIND[type.kind];
}

/**
 * The mapping of a column. Throws `type.unsupported` for a type without a row.
 */
export function columnType(type: PgType, notNull: boolean): ColumnType {
  const mapping = scalar(type);
  if (!mapping) throw new PipelineError('type.unsupported', `no mapping for type ${type.name}`);
  const base = typeof mapping.ch === 'string' ? mapping.ch : mapping.ch(type.modifier);
  const pgText = mapping.pgText ?? output;
  const chText = mapping.chText ?? (value => value);
  if (!type.array) {
    const nullable = base.startsWith('LowCardinality(')
      ? `LowCardinality(Nullable(${base.slice('LowCardinality('.length, -1)}))`
      : `Nullable(${base})`;
    return {
      column: notNull ? base : nullable,
      encode: mapping.encode,
      input: inputOf(mapping, notNull),
      pgText,
      chText,
    };
  }
  const element = base.replace(/^LowCardinality\((.*)\)$/, '$1');
  return {
    ...arrayColumn(
      {ch: element, pgText, chText, input: mapping.input, variantInput: mapping.variantInput},
      notNull,
    ),
    encode: encode.array(mapping.encode, type.delimiter),
  };
}

function inputOf(mapping: TypeMapping, notNull: boolean): WireForm | undefined {
  if (!mapping.input || notNull) return mapping.input;
  return {...mapping.input, type: `Nullable(${mapping.input.type})`};
}
