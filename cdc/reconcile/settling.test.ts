import test from 'ava';
import {type Fingerprints, Settling, type Values} from './settling.ts';

/** `{a: 5}`: unit a holds one row with the hash 5. */
const read = (units: Record<string, number>): Fingerprints =>
  new Map(Object.entries(units).map(([id, hash]) => [id, {count: 1n, sum: BigInt(hash)}]));
const outcomes = (settling: Settling): string =>
  (['equal', 'different', 'pending'] as const)
    .flatMap(outcome => settling.with(outcome).map(([id]) => `${id} ${outcome}`))
    .join(', ');

test('sides that agree are equal, also when ClickHouse comes first', t => {
  const settling = new Settling();
  settling.postgres(read({a: 1, b: 1}));
  settling.clickhouse(read({a: 1, b: 2}), false);
  t.is(outcomes(settling), 'a equal, b pending');
  settling.postgres(read({a: 9, b: 2}));
  t.is(outcomes(settling), 'a equal, b equal');
  t.is(settling.total().postgres.sum, 3n);
});

test('what stays other while PostgreSQL stands still is different: changed, missing and extra', t => {
  const settling = new Settling();
  const source = read({changed: 1, missing: 1});
  const target = read({changed: 2, extra: 1});
  settling.postgres(source);
  settling.clickhouse(target, false);
  for (let round = 1; round <= 2; round++) {
    settling.clickhouse(target, true);
    t.is(settling.with('different').length, 0);
    settling.postgres(source);
  }
  t.is(outcomes(settling), 'changed different, missing different, extra different');
});

test('a lag is no difference: ClickHouse must have been caught up', t => {
  const settling = new Settling();
  for (let round = 1; round <= 5; round++) {
    settling.postgres(read({a: 2}));
    settling.clickhouse(read({a: 1}), false);
  }
  t.is(outcomes(settling), 'a pending');
});

test('a row that comes and goes is no difference, though PostgreSQL looks the same before and after', t => {
  const settling = new Settling();
  settling.postgres(read({}));
  settling.clickhouse(read({a: 1}), false);
  settling.clickhouse(read({a: 1}), true);
  settling.postgres(read({}));
  settling.clickhouse(read({a: 7}), true); // and came again
  settling.postgres(read({}));
  t.is(outcomes(settling), 'a pending');
  settling.clickhouse(read({}), true);
  t.is(outcomes(settling), 'a equal');
});

const one = (unit: string, hash: number): Values => new Map([[unit, [{count: 1n, sum: BigInt(hash)}]]]);

test('a unit that never stands still is equal where both sides were seen with one value', t => {
  const settling = new Settling();
  settling.postgres(read({a: 1}));
  settling.clickhouse(read({a: 0}), true);
  settling.postgres(read({a: 4}));
  settling.clickhouse(read({a: 8}), true);
  settling.past(one('a', 6), one('a', 7));
  t.is(outcomes(settling), 'a pending');
  settling.past(one('a', 6), one('a', 6));
  t.is(outcomes(settling), 'a equal');
  t.deepEqual(settling.total().clickhouse, {count: 1n, sum: 6n});
});

test('a right row under a wrong newest one is no excuse', t => {
  const settling = new Settling();
  settling.postgres(read({a: 1}));
  settling.clickhouse(read({a: 13}), false);
  for (const hash of [2, 3, 4]) {
    settling.clickhouse(read({a: 13}), true);
    settling.past(one('a', hash - 1), new Map());
    settling.postgres(read({a: hash}));
  }
  t.is(outcomes(settling), 'a pending');
});
