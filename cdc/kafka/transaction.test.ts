import test from 'ava';
import fc from 'fast-check';
import {type Lsn, rowVersion} from '../source/lsn.ts';
import {technicalColumns} from '../source/row-encoder.ts';
import {Bytes} from '../types/bytes.ts';
import {Transaction} from './transaction.ts';

test('the columns of each row are those that are counted in a bigint, also where digits carry over', t => {
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  const any = fc.record({
    epoch: fc.nat(65_535),
    commitLsn: fc.oneof(fc.bigInt(0n, 9n), fc.bigInt(0n, 2n ** 64n - 1n)),
    commitMicros: fc.bigInt(0n, 2n ** 52n),
    ordinals: fc.array(
      fc.oneof(
        fc.nat(20),
        fc.maxSafeNat().map(n => n % 2 ** 47),
      ),
      {minLength: 1},
    ),
    deleted: fc.boolean(),
  });
  fc.assert(
    fc.property(any, ({epoch, commitLsn, commitMicros, ordinals, deleted}) => {
      const transaction = new Transaction({epoch, commitLsn: commitLsn as Lsn, commitMicros, xid: 1});
      for (const ordinal of ordinals) {
        const version = rowVersion(epoch, commitLsn as Lsn, ordinal);
        const out = new Bytes();
        transaction.technical(out, ordinal, deleted);
        t.is(out.view().toString(), technicalColumns(version, deleted, commitMicros));
      }
    }),
    {seed, numRuns: 500},
  );
});
