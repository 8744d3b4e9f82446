import test from 'ava';
import {oneLine, oneLineSql} from './one-line.ts';

test('what could forge a line is written out, and all else stays as it is', t => {
  t.is(oneLine('a\nb\r\tc\u001b[2J\u0000\u007f\u0085'), 'a\\nb\\r\\tc\\u001b[2J\\u0000\\u007f\\u0085');
  t.is(oneLine('\u2028\u2029\u202ex\u2066'), '\\u2028\\u2029\\u202ex\\u2066');
  const plain = 'Straße "漢字" 🌊 e\u0301 \\n \u00a0\u200b';
  t.is(oneLine(plain), plain);
});

test('a name in SQL is written in an escaped form where it must be, and only there', t => {
  t.is(
    oneLineSql(`ALTER TABLE "a b"."it""s\\\n" ADD "x"; -- \n`),
    `ALTER TABLE "a b".U&"it""s\\\\\\000a" ADD "x"; -- \\n`,
  );
});
