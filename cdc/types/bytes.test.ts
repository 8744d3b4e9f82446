import test from 'ava';
import fc from 'fast-check';
import {Bytes, writeString} from './bytes.ts';

/** Characters that are escaped, that are next to those, and that take several bytes. */
const ODD = ['"', '\\', '\n', '\u0000', '\u001f', ' ', '!', '#', '[', ']', '\u007f', 'é', '€', '😀'];

test('text of any length is JSON of the same text, wherever it begins', t => {
  const piece = fc.oneof(
    fc.constantFrom(...ODD),
    fc.integer({min: 1, max: 150}).map(length => 'x'.repeat(length)),
  );
  fc.assert(
    fc.property(fc.array(piece, {maxLength: 40}), fc.nat(5), (pieces, offset) => {
      const text = pieces.join('');
      // What is around it must not be read.
      const source = Buffer.from(`${'"'.repeat(offset)}${text}"\n`);
      const out = new Bytes(16);
      writeString(out, source, offset, source.length - 2);
      t.is(JSON.parse(out.view().toString()), text);
    }),
    {numRuns: 500},
  );
});
