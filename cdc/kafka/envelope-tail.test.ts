import assert from 'node:assert/strict';
import test from 'ava';
import fc from 'fast-check';
import type {Lsn} from '../source/lsn.ts';
import {Bytes} from '../types/bytes.ts';
import {EnvelopeTail} from './envelope-tail.ts';
import {Transaction} from './transaction.ts';

const HEAD = ',"source":{"name":"Fluß",';
const TABLE = '"table":"Größe",';

test('of a row that comes behind others in its transaction the tail is what it is alone', t => {
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  const lsn = fc.oneof(
    fc.bigInt(0n, 1_000n),
    fc.bigInt(999_999_999_990n, 1_000_000_000_010n),
    fc.bigInt(0n, 2n ** 64n - 1n),
  );
  const change = fc.record({
    lsn,
    ordinal: fc.oneof(fc.nat(30), fc.nat(200_000)),
    op: fc.constantFrom('c', 'c', 'c', 'u', 'd'),
  });
  const transactions = fc.array(
    fc.record({commitLsn: lsn, changes: fc.array(change, {minLength: 1, maxLength: 30})}),
    {minLength: 1, maxLength: 4},
  );
  const withoutTime = (text: string): string => text.replace(/("op":"\w","ts_ms":)\d{13},/, '$1now,');
  const alike = fc.property(transactions, all => {
    const tail = new EnvelopeTail(HEAD, TABLE);
    const out = new Bytes(1);
    for (const {commitLsn, changes} of all) {
      const transaction = new Transaction({
        epoch: 3,
        commitLsn: commitLsn as Lsn,
        commitMicros: 1_700_000_000_123_456n,
        xid: 77,
      });
      for (const {lsn, ordinal, op} of changes) {
        const start = out.length;
        tail.write(out, {op, ordinal, lsn: lsn as Lsn}, transaction);
        const written = out.view(start).toString();
        const expected =
          `${HEAD}"ts_ms":1700000000123,${TABLE}"sequence":"[null,\\"${lsn}\\"]",` +
          `"ts_us":1700000000123456,"ts_ns":1700000000123456000,"txId":77,"lsn":${lsn},"xmin":null,` +
          `"commit_lsn":${commitLsn},"ordinal":${ordinal},"epoch":3},"op":"${op}","ts_ms":now,"transaction":null}`;
        assert.equal(withoutTime(written), expected);
      }
    }
  });
  t.notThrows(() => fc.assert(alike, {seed, numRuns: 300}));
});
