import test from 'ava';
import {formatLsn, type Lsn, parseLsn, rowVersion} from './lsn.ts';

const CASES: readonly [string, bigint][] = [
  ['0/0', 0n],
  ['0/9', 9n],
  ['0/10', 16n],
  ['16/B374D848', 0x16b374d848n],
  ['FFFFFFFF/FFFFFFFF', 0xffffffffffffffffn],
];

for (const [text, value] of CASES) {
  test(`LSN ${text} both ways`, t => {
    t.is(parseLsn(text), value as Lsn);
    t.is(formatLsn(value as Lsn), text);
  });
}

test('what is not an LSN is refused', t => {
  for (const text of ['', '0', '0/', '/0', '0/123456789', 'G/0', '0/0 ']) {
    t.throws(() => parseLsn(text), {message: /not an LSN/});
  }
});

test('versions order by epoch, then commit, then ordinal', t => {
  const top = 0xffffffffffffffffn as Lsn;
  const versions = [
    rowVersion(0, 5n as Lsn, 0),
    rowVersion(0, 5n as Lsn, 1),
    rowVersion(0, 5n as Lsn, 2n ** 48n - 1n),
    rowVersion(0, 6n as Lsn, 0),
    rowVersion(0, top, 2n ** 48n - 1n),
    rowVersion(1, 0n as Lsn, 0),
    rowVersion(65_535, top, 1),
  ];
  t.deepEqual(
    [...versions].sort((a, b) => (a < b ? -1 : 1)),
    versions,
  );
  t.true(versions.at(-1)! < 2n ** 128n);
});
