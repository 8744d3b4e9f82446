import test from 'ava';
import fc from 'fast-check';
import {formatMills, parseMills} from './money.ts';
import {createRandom, longTail} from './random.ts';

const draws = (seed: number, purpose: string) => {
  const random = createRandom(seed, purpose);
  return Array.from({length: 20}, () => random.next());
};

test('one seed and purpose give one sequence, others another', t => {
  t.deepEqual(draws(1, 'orders'), draws(1, 'orders'));
  t.notDeepEqual(draws(1, 'orders'), draws(2, 'orders'));
  t.notDeepEqual(draws(1, 'orders'), draws(1, 'products'));
});

test('draws stay in range and near their mean', t => {
  const random = createRandom(7, 'ranges');
  const whole = Array.from({length: 10_000}, () => random.between(1, 6));
  t.deepEqual([...new Set(whole)].sort(), [1, 2, 3, 4, 5, 6]);
  const weighted = Array.from({length: 10_000}, () => random.weighted([1, 0, 3]));
  const twos = weighted.filter(index => index === 2).length;
  t.true(twos > 7_200 && twos < 7_800 && !weighted.includes(1), String(twos));
  const counted = Array.from({length: 10_000}, () => random.count(12.5)).reduce((sum, n) => sum + n) / 10_000;
  t.true(counted > 12.3 && counted < 12.7, String(counted));
});

test('a long tail reaches every index, a few of them often', t => {
  for (const size of [1, 2, 7919, 1000]) {
    const random = createRandom(3, 'tail');
    const hits = new Map<number, number>();
    for (let n = 0; n < 100_000; n++) {
      const index = longTail(random, size);
      hits.set(index, (hits.get(index) ?? 0) + 1);
    }
    t.true([...hits.keys()].every(index => Number.isInteger(index) && index >= 0 && index < size));
    if (size !== 1000) continue;
    const sorted = [...hits.values()].sort((one, other) => other - one);
    t.is(hits.size, size);
    t.true(sorted[0]! > 3_000 && sorted[0]! < 5_000, `best seller ${sorted[0]}`);
  }
});

test('money goes to text and back without loss', t => {
  fc.assert(
    fc.property(fc.bigInt({min: -999_999_999_999n, max: 999_999_999_999n}), mills => {
      t.is(parseMills(formatMills(mills)), mills);
    }),
  );
  const cases = {'2.55': 2550n, '-11062.06': -11_062_060n, '0.001': 1n, '7': 7000n, '-0.5': -500n};
  for (const [text, mills] of Object.entries(cases)) t.is(parseMills(text), mills, text);
  for (const text of ['', '.5', '1.', '1.0001', '1e3', '1,5', '1234567890', 'NaN'])
    t.is(parseMills(text), null, text);
});
