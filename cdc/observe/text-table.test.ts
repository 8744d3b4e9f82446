import test from 'ava';
import {textTable} from './text-table.ts';

test('numbers to the right, text to the left, empty columns left out, nothing after the last letter', t => {
  t.is(
    textTable([
      {table: 'public.orders', rows: 12_000, lag: null, note: 'ü', at: '7.50'},
      {table: 'b', rows: 7, lag: undefined, note: '', at: null},
    ]),
    [
      'table           rows  note    at',
      '─────────────  ─────  ────  ────',
      'public.orders  12000  ü     7.50',
      'b                  7',
    ].join('\n'),
  );
});

test('values that are not text are written as JSON, and long ones are cut', t => {
  const [, , row] = textTable([{a: true, b: {x: 1}, c: 'z'.repeat(100)}]).split('\n');
  t.is(row, `true  {"x":1}  ${'z'.repeat(59)}…`);
});

test('a line break or an ESC in a value makes no line of its own', t => {
  const lines = textTable([{table: 'a\nb  0', state: '\u001b[2Jok'}]).split('\n');
  t.is(lines.length, 3);
  t.is(lines[2], 'a\\nb  0  \\u001b[2Jok');
});

test('no rows make no table', t => {
  t.is(textTable([]).trim(), '');
});
