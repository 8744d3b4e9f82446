import fc from 'fast-check';

export const RANDOM_TYPES_SQL = `
  CREATE TYPE thing AS (label text, at timestamptz, amounts numeric[]);
  CREATE DOMAIN labels AS text[];`;

type Text = fc.Arbitrary<string>;

/** What is syntax somewhere on the way, and what text handling likes to break. */
const ODD = [
  ...'\\N\t\n\r\b\f\v"\'{}[](),;:= \u0001\u001f\u007f\u0085\u00a0\u2028\u2029\ufeff\ufffd\uffff\ue000',
];
const ODD_WORDS = [
  '\\N',
  '\\.',
  'NULL',
  'null',
  'true',
  '💥',
  '\u{10ffff}',
  'e\u0301',
  '漢',
  '"after":',
  '},"after":{',
];
const piece = fc.oneof(
  {weight: 3, arbitrary: fc.constantFrom(...ODD, ...ODD_WORDS)},
  {weight: 1, arbitrary: fc.string({unit: 'binary', maxLength: 5})},
);
const text: Text = fc
  .oneof(
    {weight: 9, arbitrary: fc.array(piece, {maxLength: 12}).map(parts => parts.join(''))},
    // Kept out of line, so that the update that leaves it alone does not send it.
    {weight: 1, arbitrary: fc.array(piece, {minLength: 100, maxLength: 200}).map(parts => parts.join(''))},
  )
  .map(value => value.replaceAll('\0', ''));

const integer = (bits: number, signed = true): Text =>
  fc
    .oneof(
      fc.bigInt(signed ? -(1n << BigInt(bits - 1)) : 0n, (1n << BigInt(signed ? bits - 1 : bits)) - 1n),
      fc.bigInt(signed ? -3n : 0n, 3n),
    )
    .map(String);

const decimalText = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));
const view = new DataView(new ArrayBuffer(8));
const float8: Text = fc.oneof(
  fc.bigInt(0n, (1n << 64n) - 1n).map(bits => {
    view.setBigUint64(0, bits);
    return decimalText(view.getFloat64(0));
  }),
  fc.double().map(decimalText),
  // Decimals with many digits, as people have them.
  fc.tuple(fc.integer(), fc.nat(15)).map(([whole, digits]) => decimalText(whole / 10 ** digits)),
);
const float4: Text = fc.oneof(
  fc.bigInt(0n, (1n << 32n) - 1n).map(bits => {
    view.setUint32(0, Number(bits));
    return decimalText(view.getFloat32(0));
  }),
  fc.integer({min: -99_999_999, max: 99_999_999}).map(whole => String(whole / 1000)),
);

const digits = (maxLength: number): Text =>
  fc.string({unit: fc.constantFrom(...'0123456789'), maxLength}).map(value => value || '0');
const sign = fc.constantFrom('', '-');
const numeric = (whole: number, fraction: number): Text =>
  fc
    .tuple(sign, digits(whole), digits(fraction))
    .map(([minus, before, after]) => `${minus}${before}${fraction ? `.${after}` : ''}`);
const anyNumeric: Text = fc.oneof(
  {weight: 8, arbitrary: numeric(100, 100)},
  {weight: 1, arbitrary: fc.constantFrom('NaN', 'Infinity', '-Infinity', '1e1000', '-1e-1000')},
);

const FIRST_MICROS = BigInt(Date.UTC(1900, 0, 1)) * 1000n;
const LAST_MICROS = BigInt(Date.UTC(2300, 0, 1)) * 1000n - 1n;
const instant = (micros: bigint): string => {
  const ms = micros / 1000n - (micros % 1000n < 0n ? 1n : 0n);
  return `${new Date(Number(ms)).toISOString().slice(0, -1)}${String(micros - ms * 1000n).padStart(3, '0')}`;
};
/** ISO, without a zone. Near the epoch a count of microseconds is short. */
const timestamp: Text = fc
  .oneof(
    fc.bigInt(FIRST_MICROS, LAST_MICROS),
    fc.bigInt(-20_000_000_000n, 20_000_000_000n),
    fc.tuple(fc.integer({min: 1, max: 15}), fc.bigInt(-9n, 9n)).map(([power, n]) => n * 10n ** BigInt(power)),
    fc.bigInt(FIRST_MICROS / 1_000_000n, LAST_MICROS / 1_000_000n).map(seconds => seconds * 1_000_000n),
  )
  .map(instant);
const date: Text = timestamp.map(value => value.slice(0, 10));
const time: Text = timestamp.map(value => value.slice(11));
const interval: Text = fc
  .tuple(
    fc.integer({min: -99_999, max: 99_999}),
    fc.integer({min: -999_999, max: 999_999}),
    sign,
    // PostgreSQL 14 takes no more seconds than this.
    fc.nat(2_147_483_647),
    fc.nat(999_999),
  )
  .map(
    ([months, days, minus, seconds, micros]) =>
      `${months} months ${days} days ${minus}${seconds}.${String(micros).padStart(6, '0')} seconds`,
  );
const timetz: Text = fc
  .tuple(time, sign, fc.nat(15), fc.nat(59))
  .map(([clock, minus, hours, minutes]) => `${clock}${minus || '+'}${hours}:${minutes}`);

const hex = (length: number): Text =>
  fc.string({unit: fc.constantFrom(...'0123456789abcdef'), minLength: length, maxLength: length});
const bytea: Text = fc.uint8Array({maxLength: 300}).map(bytes => `\\x${Buffer.from(bytes).toString('hex')}`);
const json: Text = fc.json({maxDepth: 3}).map(value => value.replaceAll('\\u0000', ''));
const bits: Text = fc.string({unit: fc.constantFrom('0', '1'), maxLength: 80});
const inet: Text = fc.oneof(
  fc.tuple(fc.ipV4(), fc.nat(32)).map(([address, mask]) => `${address}/${mask}`),
  fc.tuple(fc.ipV6(), fc.nat(128)).map(([address, mask]) => `${address}/${mask}`),
);
const point: Text = fc.tuple(float8, float8).map(([x, y]) => `(${x},${y})`);

/** PostgreSQL reads any element in quotes. */
const quoted = (value: string): string => `"${value.replaceAll(/["\\]/g, '\\$&')}"`;
const arrayOf = (element: Text, delimiter = ','): Text =>
  fc
    .tuple(fc.array(fc.option(element, {freq: 5}), {maxLength: 5}), fc.integer({min: -3, max: 3}))
    .map(([elements, from]) => {
      const list = elements.map(value => (value === null ? 'NULL' : quoted(value))).join(delimiter);
      return `${elements.length && from !== 1 ? `[${from}:${from + elements.length - 1}]=` : ''}{${list}}`;
    });
const range = (bound: Text, isBelow = (a: string, b: string): boolean => a < b): Text =>
  fc
    .tuple(bound, bound, fc.constantFrom('[', '('), fc.constantFrom(']', ')'))
    .map(([a, b, open, close]) =>
      isBelow(a, b) ? `${open}"${a}","${b}"${close}` : `${open}"${b}","${a}"${close}`,
    );
const thing: Text = fc
  .tuple(text, timestamp, arrayOf(anyNumeric))
  .map(parts => `(${parts.map(quoted).join(',')})`);

/** SQL type → text that PostgreSQL reads as a value of it, which ClickHouse has a place for. */
export const randomColumns = (): Readonly<Record<string, Text>> => {
  const scalars = {
    int2: integer(16),
    int4: integer(32),
    int8: integer(64),
    oid: integer(32, false),
    float4,
    float8,
    numeric: anyNumeric,
    'numeric(20,5)': numeric(15, 8),
    'numeric(38,38)': numeric(0, 38).map(value => value.replace(/\d+/, '0')),
    'numeric(76,30)': numeric(46, 30),
    text,
    varchar: text,
    'char(20)': text.map(value => [...value].slice(0, 20).join('')),
    timestamp,
    timestamptz: timestamp.map(value => `${value}+00`),
    date,
    time,
    timetz,
    money: numeric(16, 2),
    interval,
    bytea,
    json,
    jsonb: json,
    uuid: hex(32),
    'bit varying': bits,
    inet,
    point,
    numrange: range(integer(64), (a, b) => BigInt(a) < BigInt(b)),
    tstzmultirange: fc
      .array(range(timestamp.map(value => `${value}+00`)), {maxLength: 3})
      .map(list => `{${list.join(',')}}`),
    tstzrange: range(timestamp.map(value => `${value}+00`)),
    thing,
  } satisfies Record<string, Text>;
  const arrays = Object.entries(scalars).map(([type, element]): [string, Text] => [
    `${type}[]`,
    arrayOf(element),
  ]);
  return {...scalars, ...Object.fromEntries(arrays), labels: arrayOf(text)};
};
