import assert from 'node:assert';
import test from 'ava';
import fc from 'fast-check';
import {to as copyTo} from 'pg-copy-streams';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {CopyTextReader} from './copy-text.ts';
import {type Tuple, VALUE} from './pgoutput.ts';

const LETTERS: Readonly<Record<string, string>> = {
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
};
/** As PostgreSQL's COPY TO writes a value. */
const copied = (value: string | null): string =>
  value === null ? '\\N' : value.replaceAll(/[\b\f\n\r\t\v\\]/g, letter => LETTERS[letter]!);

const values = (row: Tuple): (string | null)[] =>
  Array.from({length: row.count}, (_, i) =>
    row.kind[i] === VALUE.null ? null : row.frame.toString('utf8', row.start[i], row.end[i]),
  );

/** Reads the text in pieces of the given lengths, again and again until it ends. */
function read(text: Buffer, lengths: readonly number[]): (string | null)[][] {
  const rows: (string | null)[][] = [];
  const reader = new CopyTextReader(row => rows.push(values(row)));
  for (let at = 0, i = 0; at < text.length; i++) {
    const length = lengths[i % lengths.length]!;
    reader.push(Buffer.from(text.subarray(at, at + length))); // its own memory: the reader may not count on the next
    at += length;
  }
  return rows;
}

const value = fc.oneof(
  fc.string({unit: 'binary', maxLength: 30}).map(text => text.replaceAll('\0', '')),
  fc.string({unit: fc.constantFrom('\t', '\n', '\r', '\\', 'N', 'n', '"', 'x', '🌊'), maxLength: 8}),
  fc.constantFrom('', '\\N', 'value\\Ntail', '\\.', '\\\\N', 'N'),
  fc.constant(null),
);
const table = fc
  .integer({min: 1, max: 5})
  .chain(width =>
    fc.array(fc.array(value, {minLength: width, maxLength: width}), {minLength: 1, maxLength: 6}),
  );
const chunks = fc.array(fc.integer({min: 1, max: 40}), {minLength: 1, maxLength: 10});

test('any values come out of the text format as they went in, however it is cut', t => {
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(table, chunks, (rows, lengths) => {
      const text = rows.map(row => `${row.map(copied).join('\t')}\n`).join('');
      assert.deepStrictEqual(read(Buffer.from(text), lengths), rows);
    }),
    {seed, numRuns: 1_000},
  );
  t.pass();
});

test('what the server copies out is what it was given', async t => {
  const {pg} = await makeWorld(t, 'CREATE TABLE v (n int PRIMARY KEY, a text, b text)');
  const rows = [
    ...fc.sample(fc.tuple(value, value), 200),
    [null, null],
    ['', '\\N'],
    ['\x01\x1f\x7f', 'a'.repeat(100_000)],
  ];
  for (const [i, [a, b]] of rows.entries()) await pg.query('INSERT INTO v VALUES ($1, $2, $3)', [i, a, b]);
  const pieces: Buffer[] = [];
  for await (const piece of pg.query(copyTo('COPY (SELECT a, b FROM v ORDER BY n) TO STDOUT'))) {
    pieces.push(piece as Buffer);
  }
  t.deepEqual(read(Buffer.concat(pieces), [7, 1, 4096]), rows);
});
