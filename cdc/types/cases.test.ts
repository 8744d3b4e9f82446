import test from 'ava';
import {sharePipeline} from '../test-support/share-pipeline.ts';
import {lost, type Value, valueCases} from './testing/value-cases.ts';

const shared = sharePipeline(test);
const nines = (count: number): string => '9'.repeat(count);

const values = valueCases(test, shared);
const outOfRange = lost(/1900 to 2299/);
const notFinite = lost(/no NaN and no infinity/);
const flattened = lost(/more than one dimension/);

const N38 = `${nines(38)}.${nines(38)}`;
values('T1 numeric without precision is exact, whatever its size', [
  ['numeric', N38, N38],
  ['numeric', `-${N38}`, `-${N38}`],
  ['numeric', nines(39), nines(39)],
  ['numeric', `-${nines(39)}`, `-${nines(39)}`],
  ['numeric', `0.${nines(39)}`, `0.${nines(39)}`],
  ['numeric', '1.50', '1.50'],
  ['numeric[]', `{${N38},-${nines(39)},NULL}`, `['${N38}','-${nines(39)}',NULL]`],
]);

values('T2 numeric of up to 76 digits is a Decimal, above it text: exact in both', [
  ['numeric(76,38)', N38, N38],
  ['numeric(76,0)', `-${nines(76)}`, `-${nines(76)}`],
  ['numeric(76,76)', `0.${nines(76)}`, `0.${nines(76)}`],
  ['numeric(96,48)', `${nines(48)}.${nines(48)}`, `${nines(48)}.${nines(48)}`],
  ['numeric', '1e1000', `1${'0'.repeat(1000)}`],
  ['numeric(12,3)', '0.1', '0.1'],
  ['numeric(76,38)[]', `{${N38},NULL}`, `[${N38},NULL]`],
]);

values('T3 NaN and infinity are NULL and recorded in a Decimal, themselves in text; never 0', [
  notFinite('numeric(10,2)', 'NaN'),
  notFinite('numeric(76,0)', 'NaN'),
  notFinite('numeric(10,2)[]', '{1.00,NaN,2.00}'),
  ['numeric(10,2)', '1', '1'],
  ['numeric', 'NaN', 'NaN'],
  ['numeric', 'Infinity', 'Infinity'],
  ['numeric', '-Infinity', '-Infinity'],
  ['numeric(96,48)', 'NaN', 'NaN'],
  ['numeric[]', '{NaN,-Infinity,0}', "['NaN','-Infinity','0']"],
]);

values('T4 floats have the same bits', [
  ['float8', 'NaN', 'nan'],
  ['float8', 'Infinity', 'inf'],
  ['float8', '-Infinity', '-inf'],
  ['float8', '-0', '-0'],
  ['float8', '1e-308', '1e-308'],
  ['float8', '5e-324', '5e-324'],
  ['float8', '0.1', '0.1'],
  ['float4', '0.1', '0.1'],
  ['float4', '16777216', '16777216'],
  ['float4', '1e-45', '1e-45'],
  ['float4', '-0', '-0'],
  ['float8[]', '{NaN,-0,Infinity,NULL}', '[nan,-0,inf,NULL]'],
]);

values('T5 the ends of the integers, and an oid above 2^31', [
  ['int8', '9223372036854775807', '9223372036854775807'],
  ['int8', '-9223372036854775808', '-9223372036854775808'],
  ['int8[]', '{9223372036854775807,-9223372036854775808}', '[9223372036854775807,-9223372036854775808]'],
  ['oid', '4000000000', '4000000000'],
  ['xid8', '18446744073709551615', '18446744073709551615'],
  ['int2', '-32768', '-32768'],
]);

values('T6 timestamps out of range, infinity and BC are NULL and recorded with the text PostgreSQL has', [
  outOfRange('timestamp', '294247-01-01'),
  outOfRange('timestamp', '21016-11-04'),
  outOfRange('timestamp', '4713-12-31 BC'),
  outOfRange('timestamp', '0001-01-31'),
  outOfRange('timestamp', '1899-12-31 23:59:59.999999'),
  outOfRange('timestamp', '2300-01-01'),
  outOfRange('timestamp', 'infinity'),
  outOfRange('timestamptz', '-infinity'),
  outOfRange('timestamptz', '1900-01-01 00:59:59.999999+01'),
  outOfRange('timestamptz', '0001-01-31 00:00:00+00'),
  outOfRange('timestamptz[]', '{"2024-01-01 00:00:00+00",infinity}'),
  ['timestamp', '1900-01-01', '1900-01-01 00:00:00.000000'],
  ['timestamp', '2299-12-31 23:59:59.999999', '2299-12-31 23:59:59.999999'],
]);

values('T7 a time of 24:00:00 and each microsecond are kept', [
  ['time', '24:00:00', '24:00:00'],
  ['time', '00:00:00.000249', '00:00:00.000249'],
  ['timetz(0)', '23:59:59.999999+00', '24:00:00+00'],
  ['timetz', '12:00:00.000001-08:30', '12:00:00.000001-08:30'],
  ['time[]', '{24:00:00,NULL}', "['24:00:00',NULL]"],
]);

const ODD_SESSIONS = `DO $$ BEGIN
  EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Asia/Kathmandu');
  EXECUTE format('ALTER DATABASE %I SET datestyle = %L', current_database(), 'German, DMY');
  EXECUTE format('ALTER DATABASE %I SET intervalstyle = %L', current_database(), 'sql_standard');
  EXECUTE format('ALTER DATABASE %I SET bytea_output = %L', current_database(), 'escape');
  EXECUTE format('ALTER DATABASE %I SET extra_float_digits = %L', current_database(), '-15');
END $$;`;
values(
  "T8 an instant is exact to the microsecond, whatever the database's TimeZone and DateStyle",
  [
    ['timestamptz', '2020-03-01 12:00:00.123456+05:30', '2020-03-01 06:30:00.123456'],
    ['timestamptz', '1969-12-31 23:59:59.999999+00', '1969-12-31 23:59:59.999999'],
    ['timestamptz[]', '{"2020-03-01 12:00:00.123456+05:30"}', "['2020-03-01 06:30:00.123456']"],
    ['tstzrange', '["2020-03-01 12:00:00.1+05:30",)', '["2020-03-01 06:30:00.1+00",)'],
    ['date', '2020-03-01', '2020-03-01'],
    ['float8', '0.30000000000000004', '0.30000000000000004'],
  ],
  ODD_SESSIONS,
);

values('T9 dates outside 1900 to 2299 are NULL and recorded, never clamped', [
  outOfRange('date', '1899-12-31'),
  outOfRange('date', '2300-01-01'),
  outOfRange('date', 'infinity'),
  outOfRange('date', '-infinity'),
  outOfRange('date', '0044-03-15 BC'),
  outOfRange('date', '10000-01-01'),
  outOfRange('date', '19000-01-01'),
  outOfRange('date', '1900-01-01 BC'),
  outOfRange('date[]', '{2024-01-01,infinity,2024-01-02}'),
  ['date', '1900-01-01', '1900-01-01'],
  ['date', '2299-12-31', '2299-12-31'],
  ['date[]', '{1900-01-01,NULL,2299-12-31}', "['1900-01-01',NULL,'2299-12-31']"],
]);

values('T10 intervals are ISO 8601', [
  ['interval', '1 year 2 mon 3 day 04:05:06.78', 'P1Y2M3DT4H5M6.78S'],
  ['interval', '-1 year +2 mon -3 day +04:05:06', 'P-10M-3DT4H5M6S'],
  ['interval', '1 mon -1 day -00:00:00.000001', 'P1M-1DT-0.000001S'],
  ['interval', '0', 'PT0S'],
  ['interval[]', '{1 day,NULL}', "['P1D',NULL]"],
]);

values('T12 bytes are the same bytes, and text that COPY writes with escapes is itself', [
  ['bytea', '\\x00', '00'],
  ['bytea', '\\x3031ff7f', '3031ff7f'],
  ['bytea', '', ''],
  ['bytea', null, null],
  ['text', '\\N', '\\N'],
  ['text', 'value\\Ntail', 'value\\Ntail'],
  ['text', '\\.', '\\.'],
  ['text', 'tab\tnewline\nback\\slash\rCR\r\n\b\f\v', 'tab\tnewline\nback\\slash\rCR\r\n\b\f\v'],
  ['text', '', ''],
  ['text', null, null],
]);

values('T14 json null is not NULL, and json keeps what it was given', [
  ['json', 'null', 'null'],
  ['json', null, null],
  ['json', '{"a":1,"a":2}', '{"a":1,"a":2}'],
  ['json', '[1e400,12345678901234567890123, 1.10]', '[1e400,12345678901234567890123, 1.10]'],
  ['json', '"\\u0000\\ud83d\\ude00"', '"\\u0000\\ud83d\\ude00"'],
  ['jsonb', 'null', 'null'],
  ['jsonb', null, null],
  ['jsonb', '{"b":1, "a":12345678901234567890123, "a":1.10}', '{"a": 1.10, "b": 1}'],
  ['jsonb', '1e30', `1${'0'.repeat(30)}`],
  ['jsonb[]', '{null,NULL,"null","{\\"a\\": [1, null]}"}', `[NULL,NULL,'null','{"a": [1, null]}']`],
]);

values(
  'T15 arrays keep their elements and NULLs; bounds are dropped; more dimensions are never flattened',
  [
    ['int4[]', '{1,NULL,3}', '[1,NULL,3]'],
    ['int4[]', '[0:1]={1,2}', '[1,2]'],
    ['int4[]', '{}', '[]'],
    ['int4[]', null, null],
    flattened('int4[]', '{{1,2},{3,4}}'),
    flattened('int4[]', '[0:0][5:6]={{1,2}}'),
    ['text[]', '{a,NULL,c}', "['a',NULL,'c']"],
    ['text[]', '{""}', "['']"],
    ['text[]', '{"a,b","q\\"x"}', `['a,b','q"x']`],
    ['text[]', '{"NULL","{}","\\\\"}', "['NULL','{}','\\\\']"],
    flattened('text[]', '{{a,b}}'),
    [
      'uuid[]',
      '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}',
      "['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',NULL]",
    ],
    ['mood[]', '{sad,NULL,"it\'s"}', "['sad',NULL,'it\\'s']"],
    ['box[]', '{(1,1),(0,0);NULL;(2,2),(0,0)}', "['(1,1),(0,0)',NULL,'(2,2),(0,0)']"],
    ['bool[]', '{t,NULL,f}', '[true,NULL,false]'],
  ],
  "CREATE TYPE mood AS ENUM ('sad', 'it''s');",
);

values('T19 network, xml, full text and geometry are their text; a uuid is a UUID', [
  ['inet', '192.168.2.0/12', '192.168.2.0/12'],
  ['cidr', '2001:4f8:3:ba::/64', '2001:4f8:3:ba::/64'],
  ['macaddr8', '08:00:2b:01:02:03:04:05', '08:00:2b:01:02:03:04:05'],
  ['uuid', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  ['xml', '<a b="1">ä</a>', '<a b="1">ä</a>'],
  ['tsvector', "'b':2A 'a'", "'a' 'b':2A"],
  ['point', '(1,2.5)', '(1,2.5)'],
  ['polygon', '((0,0),(1,1),(1,0))', '((0,0),(1,1),(1,0))'],
]);

values(
  'T20 NULL is NULL, not a default',
  [
    ...[
      'int4',
      'text',
      'bool',
      'float8',
      'numeric(5,2)',
      'date',
      'timestamptz',
      'uuid',
      'jsonb',
      'mood',
      'int4[]',
    ].map((type): Value => [type, null, null]),
    ['text', '', ''],
    ['int4', '0', '0'],
  ],
  "CREATE TYPE mood AS ENUM ('sad');",
);

const T16 = shared.corner(
  "CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE v (id int PRIMARY KEY, m mood, ms mood[])",
);
test('T16 a label that is added to an enum while its table streams arrives', async t => {
  const {pg, query, caughtUp} = await T16(t);
  await pg.query("INSERT INTO v VALUES (1, 'sad', '{sad}')");
  await pg.query("ALTER TYPE mood ADD VALUE 'it''s \"new\"' BEFORE 'sad'");
  await pg.query(`INSERT INTO v VALUES (2, 'it''s "new"', ARRAY['sad', 'it''s "new"']::mood[])`);
  await pg.query(`UPDATE v SET m = 'it''s "new"' WHERE id = 1`);
  await caughtUp();
  const label = 'it\'s "new"';
  t.deepEqual(await query('SELECT * FROM {an}.v ORDER BY id'), [
    {id: 1, m: label, ms: ['sad']},
    {id: 2, m: label, ms: ['sad', label]},
  ]);
});
