import test from 'ava';
import {blankComments, expandMacros, MACROS} from './macros.ts';
import {replaceVariables} from './variables.ts';

const context = {
  from: new Date('2014-11-12T11:45:26.371Z'),
  to: new Date('2015-11-12T11:45:26.456Z'),
  intervalMs: 20_500,
};
const FROM = 'toDateTime(1415792726)';
const TO = 'toDateTime(1447328726)';

/** Each macro, and what it becomes. */
const EXPANSIONS: readonly (readonly [macro: string, sql: string])[] = [
  ['$__timeFilter(at)', `at >= ${FROM} AND at <= ${TO}`],
  [
    '$__timeFilter_ms(at)',
    'at >= fromUnixTimestamp64Milli(1415792726371) AND at <= fromUnixTimestamp64Milli(1447328726456)',
  ],
  ['$__dateFilter(day)', "day >= toDate('2014-11-12') AND day <= toDate('2015-11-12')"],
  [
    '$__dateTimeFilter(day, at)',
    `(day >= toDate('2014-11-12') AND day <= toDate('2015-11-12')) AND (at >= ${FROM} AND at <= ${TO})`,
  ],
  [
    '$__dt(day, at)',
    `(day >= toDate('2014-11-12') AND day <= toDate('2015-11-12')) AND (at >= ${FROM} AND at <= ${TO})`,
  ],
  ['$__timeFrom(at)', `at >= ${FROM}`],
  ['$__timeTo(at)', `at <= ${TO}`],
  ['$__fromTime', FROM],
  ['$__toTime', TO],
  ['$__fromTime_ms', 'fromUnixTimestamp64Milli(1415792726371)'],
  ['$__toTime_ms', 'fromUnixTimestamp64Milli(1447328726456)'],
  ['$__timeInterval(at)', 'toStartOfInterval(toDateTime(at), INTERVAL 20 second)'],
  ['$__timeInterval_ms(at)', 'toStartOfInterval(toDateTime64(at, 3), INTERVAL 20500 millisecond)'],
  ['$__timeGroup(at, 5m)', 'toStartOfInterval(toDateTime(at), INTERVAL 300 second)'],
  ["$__timeGroup(at, '1h30m')", 'toStartOfInterval(toDateTime(at), INTERVAL 5400 second)'],
  ['$__interval_s', '20'],
  ['$__interval_ms', '20500'],
];

for (const [macro, sql] of EXPANSIONS) {
  test(`${macro} expands as in the plugin`, t => t.is(expandMacros(macro, context), sql));
}

test('every macro of the table has an expansion above', t => {
  const shown = new Set(EXPANSIONS.map(([macro]) => /\$__(\w+)/.exec(macro)?.[1]));
  t.deepEqual(
    Object.keys(MACROS).filter(name => !shown.has(name)),
    [],
  );
});

/** Where a macro stands, and what comes out. */
const PLACES: readonly (readonly [what: string, sql: string, expanded: string])[] = [
  [
    'brackets and commas in an argument',
    '$__timeFilter(coalesce(cast(a AS T), b) )',
    `coalesce(cast(a AS T), b) >= ${FROM} AND coalesce(cast(a AS T), b) <= ${TO}`,
  ],
  ['a bracket in a string in an argument', "$__timeFrom(f('a)', b))", `f('a)', b) >= ${FROM}`],
  ['a macro in an argument', '$__timeFrom(coalesce(at, $__toTime))', `coalesce(at, ${TO}) >= ${FROM}`],
  ['a line comment', 'a -- $__fromTime\n$__toTime', `a               \n${TO}`],
  ['a block comment', '/* $__timeFilter( */$__toTime', `${' '.repeat(20)}${TO}`],
  ['a comment sign in a string', "'it\\'s -- /*' $__toTime", `'it\\'s -- /*' ${TO}`],
  ['a comment sign in a quoted name', '`a--b` "c/*" $__toTime', `\`a--b\` "c/*" ${TO}`],
  ['a comment sign in a dollar-quoted string', '$d$a--b$d$ $__toTime', `$d$a--b$d$ ${TO}`],
  ['a doubled quote', "'it''s -- ' $__toTime", `'it''s -- ' ${TO}`],
  // The plugin does not look at strings either.
  ['a string', "'$__interval_s'", "'20'"],
  ['a name that begins like another', '$__interval_sum $__fromTimes', '$__interval_sum $__fromTimes'],
  ['a name that is no macro', '$__nothing($__toTime)', `$__nothing(${TO})`],
  ['two macros', '$__fromTime,$__toTime', `${FROM},${TO}`],
];

for (const [what, sql, expanded] of PLACES) {
  test(`macros and ${what}`, t => t.is(expandMacros(sql, context), expanded));
}

test('comments keep their length and their lines', t => {
  const sql = 'a -- b\n/* c\nd */ e';
  t.is(blankComments(sql).length, sql.length);
  t.is(blankComments(sql), 'a     \n    \n     e');
});

test('what cannot be expanded is refused', t => {
  const wrong = [
    '$__timeFilter()',
    '$__timeFilter(a, b)',
    '$__dt(a)',
    '$__timeFilter(a',
    '$__timeGroup(a, 1d)',
    '$__timeGroup(a, 0s)',
    '$__columns(a, b, c)',
    "$__adHocFilters('t')",
  ];
  for (const sql of wrong) t.throws(() => expandMacros(sql, context), {instanceOf: TypeError}, sql);
});

test('variables become values, and All becomes no condition', t => {
  const query = "$__conditionalAll(f(a, ')') IN (${v:singlequote}), $v) AND ${v} $v";
  t.is(replaceVariables(query, {v: ["o'x", 'y']}), `f(a, ')') IN ('o\\'x','y') AND 'o'x','y' 'o'x','y'`);
  t.is(replaceVariables(query, {v: null}), '1=1 AND ${v} $v');
  t.is(replaceVariables("$__conditionalAll(a = '$v', $v)", {v: ['']}), '1=1');
  t.is(
    replaceVariables('$__conditionalAll(a, $v) OR $__conditionalAll(b, $w)', {v: null, w: ['1']}),
    '1=1 OR b',
  );
  t.is(replaceVariables('$other $__fromTime', {v: ['1']}), '$other $__fromTime');
  t.throws(() => replaceVariables('$__conditionalAll(a, ${v:csv})', {v: ['1']}), {instanceOf: TypeError});
  t.throws(() => replaceVariables('${v:csv}', {v: ['1']}), {instanceOf: TypeError});
});
