import assert from 'node:assert';
import test from 'ava';
import fc from 'fast-check';
import {joinObject, rowImage, splitObject} from './row-json.ts';

/** Strings that look like the envelope they lie in. */
const text = fc.oneof(
  fc.string({unit: 'binary', maxLength: 12}),
  fc.constantFrom(
    ',"after":',
    '},"after":{',
    '{"before":null,"after":{',
    ',"source":{',
    '"',
    '\\',
    '\\"',
    '[',
    ']',
    '{}',
    ',',
    '\n\t\u0001',
    '🌊',
  ),
);
/** A value as `RowEncoder` writes it: no objects, arrays of one dimension. */
const value = fc.oneof(
  text.map(JSON.stringify),
  fc
    .array(fc.oneof(text.map(JSON.stringify), fc.constant('null'), fc.constant('-1.5e300')))
    .map(v => `[${v}]`),
  fc.constantFrom('null', 'true', 'false', '0', '-9223372036854775808', '1e400', '12345678901234567890.50'),
);
const column = fc.oneof(fc.constantFrom('id', 'before', 'after', 'source', 'op'), text);
const row = fc.uniqueArray(fc.tuple(column, value), {minLength: 1, maxLength: 6, selector: ([name]) => name});
const objectOf = (members: readonly (readonly [string, string])[]): string =>
  `{${members.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(',')}}`;
const envelope = (before: string, after: string): Buffer =>
  Buffer.from(
    `{"before":${before},"after":${after},"source":{"version":"1.0","table":"t"},"op":"u","ts_ms":1,"transaction":null}`,
  );

const seed = Date.now() % 2 ** 31;

test('the row image is found, whatever stands in the rows', t => {
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(fc.option(row), row, (before, after) => {
      const [old, now] = [before ? objectOf(before) : 'null', objectOf(after)];
      assert.strictEqual(rowImage(envelope(old, now)).toString(), now);
    }),
    {seed, numRuns: 3_000},
  );
  t.pass();
});

test('an object is cut into members, and joined again to the same bytes', t => {
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(row, members => {
      const json = Buffer.from(objectOf(members));
      const found = splitObject(json);
      assert.deepStrictEqual([...found], members);
      assert.deepStrictEqual(joinObject(found), json);
    }),
    {seed, numRuns: 3_000},
  );
  t.pass();
});

for (const [what, json] of [
  ['cut in a string', '{"a":"b'],
  ['cut behind a name', '{"a"'],
  ['cut in a list', '{"a":["b"'],
  ['cut behind a value', '{"a":1'],
  ['empty', '{'],
] as const) {
  test(`an object that is ${what} is refused`, t => {
    t.like(
      t.throws(() => splitObject(Buffer.from(json))),
      {code: 'kafka.bad_message'},
    );
  });
}

for (const [what, value] of [
  ['no after', '{"before":null}'],
  ['a null image', '{"before":null,"after":null,"source":{}}'],
  ['a null image behind another', '{"before":{"id":1},"after":null,"source":{}}'],
  ['no source', '{"before":null,"after":{"id":1}}'],
] as const) {
  test(`an envelope with ${what} is refused`, t => {
    t.like(
      t.throws(() => rowImage(Buffer.from(value))),
      {code: 'kafka.bad_message'},
    );
  });
}
