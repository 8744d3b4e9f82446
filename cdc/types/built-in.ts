import * as encode from './encode.ts';
import {type TypeMapping, text} from './mapping.ts';

const outOfYears = (value: string): string => `(${value} < '1900-01-01' OR ${value} >= '2300-01-01')`;
const inYears = (value: string, text: string): string =>
  `CASE WHEN NOT ${outOfYears(value)} THEN ${text} END`;

const FLOATS = ['0', '-0', '0.1', '-1.5', 'NaN', 'Infinity', '-Infinity'];
/** What is syntax somewhere on the way, and what text handling likes to break. */
const TEXTS = [
  '',
  'a',
  ' ',
  'NULL',
  '\\N',
  '\\.',
  'value\\Ntail',
  'tab\tline\nquote"back\\slash\rCR\r\n',
  'naïve 漢字 🌊 e\u0301 \u200f\u202e',
  '\u0001\u001f\u007f\u0085\u2028\u2029\ufeff\ue000\uffff\u{10ffff}',
  '{"after":{"a":1},"source":{',
];

const integer = (ch: string, ...samples: string[]): TypeMapping => ({
  ch,
  encode: encode.number,
  copy: {},
  chText: value => `toString(${value})`,
  samples,
});
const float = (bits: 32 | 64, ...samples: string[]): TypeMapping => ({
  ch: `Float${bits}`,
  encode: encode.float,
  copy: {},
  pgText: value =>
    `CASE WHEN ${value} = 'NaN' THEN 'nan' ELSE encode(float${bits / 8}send(${value}), 'hex') END`,
  chText: value =>
    `if(isNaN(${value}), 'nan', lower(leftPad(hex(reinterpretAsUInt${bits}(${value})), ${bits / 4}, '0')))`,
  samples,
});

/**
 * The types of PostgreSQL itself: the column, the encoding, and the values that the round-trip test sends. One encoder
 * serves snapshot and stream.
 */
export const BUILT_IN_TYPES: Readonly<Record<string, TypeMapping>> = {
  bool: {
    ch: 'Bool',
    encode: encode.bool,
    copy: {},
    chText: value => `substring(toString(${value}), 1, 1)`,
    samples: ['t', 'f'],
  },
  int2: integer('Int16', '-32768', '0', '32767'),
  int4: integer('Int32', '-2147483648', '0', '2147483647'),
  int8: integer('Int64', '-9223372036854775808', '9223372036854775807', '9007199254740993', '0'),
  oid: integer('UInt32', '0', '4000000000', '4294967295'),
  xid: integer('UInt32', '0', '4294967295'),
  cid: integer('UInt32', '0', '4294967295'),
  xid8: integer('UInt64', '0', '9223372036854775808', '18446744073709551615'),
  float4: float(32, ...FLOATS, '1e-45', '1.17549435e-38', '3.4028235e+38', '16777217', '8388608.5'),
  float8: float(
    64,
    ...FLOATS,
    '1e-308',
    '5e-324',
    '2.2250738585072014e-308',
    '1.7976931348623157e+308',
    '9007199254740993',
    '1e22',
    '1e23',
    '4.35',
  ),
  uuid: {
    ch: 'UUID',
    encode: encode.string,
    copy: {},
    chText: value => `toString(${value})`,
    samples: [
      'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
      '00000000-0000-0000-0000-000000000000',
      '{FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF}',
    ],
  },
  date: {
    ch: 'Date32',
    encode: encode.date,
    copy: {},
    unfit: outOfYears,
    pgText: value => inYears(value, `to_char(${value}, 'YYYY-MM-DD')`),
    chText: value => `toString(${value})`,
    samples: ['1900-01-01', '1900-03-01', '1969-12-31', '1970-01-01', '2000-02-29', '2299-12-31'],
  },
  timestamp: {
    // A time without a zone is shown as PostgreSQL shows it, whatever the zone of the ClickHouse server.
    ch: "DateTime64(6, 'UTC')",
    encode: encode.timestamp,
    copy: {},
    unfit: outOfYears,
    pgText: value => inYears(value, `to_char(${value}, 'YYYY-MM-DD HH24:MI:SS.US')`),
    chText: value => `toString(${value}, 'UTC')`,
    samples: [
      '1900-01-01 00:00:00',
      '1969-12-31 23:59:59.999999',
      '1969-12-31 23:59:59',
      '1969-12-31 23:43:20',
      '1970-01-01 00:00:00',
      '1970-01-01 00:00:00.00002',
      '1970-01-01 00:16:40',
      '2016-12-31 23:59:60',
      '2024-02-29 12:34:56.1',
      // More nanoseconds than fit into 64 bits.
      '2262-04-11 23:47:16.854776',
      '2299-12-31 23:59:59.999999',
    ],
  },
  timestamptz: {
    ch: "DateTime64(6, 'UTC')",
    encode: encode.timestamptz,
    // As text without a zone, which ClickHouse reads as UTC.
    copy: {select: value => `${value} AT TIME ZONE 'UTC'`},
    unfit: outOfYears,
    pgText: value => inYears(value, `to_char(${value} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`),
    chText: value => `toString(${value}, 'UTC')`,
    samples: [
      '1900-01-01 00:00:00+00',
      '1969-12-31 23:59:59.999999+00',
      '1970-01-01 00:00:00.000001+00',
      '2020-03-01 12:00:00.123456+05:30',
      '2299-12-31 23:59:59.999999+00',
    ],
  },
  bytea: {
    ch: 'String',
    encode: encode.bytea,
    copy: {type: 'String', expr: read => `unhex(substring(${read}, 3))`},
    input: {type: 'String', expr: read => `base64Decode(${read})`, back: stored => `base64Encode(${stored})`},
    pgText: value => `encode(${value}, 'hex')`,
    chText: value => `lower(hex(${value}))`,
    samples: ['', '\\x00', '\\x3031ff7f', '\\xdeadbeef', '\\x5c4e', '\\xedb080c0af0a0d09'],
  },
  text: text(...TEXTS),
  varchar: text(...TEXTS),
  bpchar: text('a  ', '', '漢  '),
  char: text('a', '', '\\', '"', '\\377'),
  name: text('pg_class', '', 'ÄÖÜ "q" \\N'),
  json: text(
    'null',
    '{"a":1,"a":2}',
    '[1e400, 12345678901234567890123, -0.0, 1.10]',
    '"text"',
    ' {\n "b" : [ ] ,\t"a\\u0000": "\\ud83d\\ude00\\u2028" } ',
  ),
  jsonb: text(
    'null',
    '{"a": {"b": [1, "x\\"y"]}}',
    '12345678901234567890123.5',
    '[1e400, -0.0, 1.10, true, "\\ud83d\\ude00\\u2028\\\\N"]',
    '{}',
  ),
  jsonpath: text('$.a[*] ? (@ > 1)', 'strict $."b c"', '$'),
  xml: text('<a>1</a>', '', 'x &lt; y', '<?xml version="1.0"?><a b="1">ä<!-- c --><![CDATA[<]]></a>'),
  time: text('00:00:00', '24:00:00', '00:00:00.000249', '23:59:59.999999'),
  timetz: text('23:59:59.999999+00', '24:00:00+00', '12:00:00-08:30', '00:00:00+15:59:59', '24:00:00-15:59'),
  interval: text(
    '1 year 2 mon 3 day 04:05:06.78',
    '-1 year +2 mon -3 day',
    '0',
    '1 mon -1 day 00:00:00.000001',
    '-00:00:00.5',
    '178000000 years',
    '-178000000 years',
  ),
  // As the database's lc_monetary writes it, the same for snapshot, stream and verify.
  money: text('1234.56', '-0.01', '0', '92233720368547758.07', '-92233720368547758.08'),
  bit: text('1', '0'),
  varbit: text('', '10101', '1'.repeat(70)),
  inet: text('192.168.2.0/12', '::1', '0.0.0.0/0', '::ffff:1.2.3.4/120', '2001:db8::/32'),
  cidr: text('10.0.0.0/8', '::/0', '2001:4f8:3:ba::/64'),
  macaddr: text('08:00:2b:01:02:03', 'ff:ff:ff:ff:ff:ff'),
  macaddr8: text('08:00:2b:01:02:03:04:05'),
  point: text('(1,2.5)', '(-0,1e-300)', '(NaN,Infinity)'),
  line: text('{1,2,3}', '{-0.5,1e300,0}'),
  lseg: text('[(0,0),(1,1)]'),
  box: text('(1,1),(0,0)', '(Infinity,1),(-Infinity,0.1)'),
  path: text('((0,0),(1,1))', '[(0,0),(1,1)]'),
  polygon: text('((0,0),(1,1),(1,0))'),
  circle: text('<(0,0),1>', '<(0.1,-0),0>'),
  tsvector: text("'a' 'b':2", '', "'it''s':1A,2B 'a b' '\\\\'"),
  tsquery: text("'a' & 'b'", '', "!'a' <-> ( 'b' | 'it''s':*A )"),
  pg_lsn: text('16/B374D848', '0/0', 'FFFFFFFF/FFFFFFFF'),
  pg_snapshot: text('10:20:10,14,15', '1:1:'),
  txid_snapshot: text('10:20:10,14,15'),
  tid: text('(0,1)', '(4294967295,65535)'),
  refcursor: text('portal "1"', ''),
  int2vector: text('', '1 -2 3'),
  oidvector: text('', '1 4000000000'),
};
