/** What Grafana knows when it expands a query: the dashboard's time range and the width of one point. */
export interface QueryContext {
  from: Date;
  to: Date;
  intervalMs: number;
}

type Macro = {arguments: number; expand: (context: QueryContext, ...given: string[]) => string};

const seconds = (at: Date) => `toDateTime(${Math.floor(at.getTime() / 1000)})`;
const millis = (at: Date) => `fromUnixTimestamp64Milli(${at.getTime()})`;
const date = (at: Date) => `toDate('${at.toISOString().slice(0, 10)}')`;
const between = (column: string, literal: (at: Date) => string, {from, to}: QueryContext) =>
  `${column} >= ${literal(from)} AND ${column} <= ${literal(to)}`;
const step = ({intervalMs}: QueryContext) => Math.max(1, Math.floor(intervalMs / 1000));
const bucket = (column: string, width: number) =>
  `toStartOfInterval(toDateTime(${column}), INTERVAL ${width} second)`;
const dateAndTime: Macro = {
  arguments: 2,
  expand: (context, day, time) =>
    `(${between(day!, date, context)}) AND (${between(time!, seconds, context)})`,
};

/**
 * The expression macros of grafana-clickhouse-datasource 4.20.0, as its backend expands them. Dates are UTC dates.
 * `$__interval_ms` is one that Grafana itself replaces first.
 */
export const MACROS: Readonly<Record<string, Macro>> = {
  timeFilter: {arguments: 1, expand: (context, column) => between(column!, seconds, context)},
  timeFilter_ms: {arguments: 1, expand: (context, column) => between(column!, millis, context)},
  dateFilter: {arguments: 1, expand: (context, column) => between(column!, date, context)},
  dateTimeFilter: dateAndTime,
  dt: dateAndTime,
  timeFrom: {arguments: 1, expand: ({from}, column) => `${column} >= ${seconds(from)}`},
  timeTo: {arguments: 1, expand: ({to}, column) => `${column} <= ${seconds(to)}`},
  fromTime: {arguments: 0, expand: ({from}) => seconds(from)},
  toTime: {arguments: 0, expand: ({to}) => seconds(to)},
  fromTime_ms: {arguments: 0, expand: ({from}) => millis(from)},
  toTime_ms: {arguments: 0, expand: ({to}) => millis(to)},
  timeInterval: {arguments: 1, expand: (context, column) => bucket(column!, step(context))},
  timeInterval_ms: {
    arguments: 1,
    expand: ({intervalMs}, column) =>
      `toStartOfInterval(toDateTime64(${column}, 3), INTERVAL ${Math.max(1, intervalMs)} millisecond)`,
  },
  timeGroup: {arguments: 2, expand: (_, column, width) => bucket(column!, goDuration(width!))},
  interval_s: {arguments: 0, expand: context => String(step(context))},
  interval_ms: {arguments: 0, expand: ({intervalMs}) => String(intervalMs)},
};

/** Macros that rewrite a whole statement, or that only the browser knows: not ported, and refused. */
const REFUSED = /^(columns|rateColumns|perSecondColumns|increaseColumns|lttb|adHocFilters|interval)$/;

/**
 * Replaces every macro in `sql`, innermost first, as the plugin's backend does: comments are blanked before, string
 * literals are not looked at, and a name that is no macro stays. Throws TypeError for a wrong number of arguments.
 */
export function expandMacros(sql: string, context: QueryContext): string {
  return expand(blankComments(sql), context);
}

function expand(sql: string, context: QueryContext): string {
  let result = '';
  let done = 0;
  for (const found of sql.matchAll(/\$__(\w+)/g)) {
    if (found.index < done) continue; // inside the arguments of the macro before
    const name = found[1]!;
    const macro = Object.hasOwn(MACROS, name) ? MACROS[name] : undefined;
    if (REFUSED.test(name)) throw new TypeError(`$__${name} is not supported here`);
    if (!macro) continue;
    const end = found.index + found[0].length;
    const call = sql[end] === '(' ? readArguments(sql, end) : {given: [], end};
    const given = call.given.map(argument => expand(argument, context));
    if (given.length !== macro.arguments && macro.arguments > 0) {
      throw new TypeError(`$__${name} takes ${macro.arguments} arguments, not ${given.length}`);
    }
    result += sql.slice(done, found.index) + macro.expand(context, ...given);
    done = call.end;
  }
  return result + sql.slice(done);
}

/** Reads `(a, f(b, c))` at `open`; quotes and inner brackets keep their commas. `end` is past the bracket. */
export function readArguments(sql: string, open: number): {given: string[]; end: number} {
  const given: string[] = [];
  let depth = 0;
  let start = open + 1;
  for (let i = open; i < sql.length; i++) {
    const letter = sql[i]!;
    if (letter === "'" || letter === '"' || letter === '`') i = endOfQuote(sql, i) - 1;
    else if (letter === '(') depth++;
    else if (letter === ')') depth--;
    if (depth === 0 || (depth === 1 && letter === ',')) {
      given.push(sql.slice(start, i).trim());
      start = i + 1;
    }
    if (depth === 0) return {given: given.length === 1 && given[0] === '' ? [] : given, end: i + 1};
  }
  throw new TypeError(`no closing bracket after ${sql.slice(open, open + 20)}`);
}

/** The same text with comments as spaces, so that a macro in one is not expanded. */
export function blankComments(sql: string): string {
  let result = '';
  for (let i = 0; i < sql.length; ) {
    const rest = sql.slice(i);
    const comment = /^(--[^\n]*|\/\*[\s\S]*?(\*\/|$))/.exec(rest)?.[0];
    const dollar = /^\$(\w*)\$[\s\S]*?\$\1\$/.exec(rest)?.[0];
    const quoted = /^['"`]/.test(rest) ? sql.slice(i, endOfQuote(sql, i)) : undefined;
    const taken = comment ?? dollar ?? quoted ?? sql[i]!;
    result += comment === undefined ? taken : taken.replaceAll(/[^\n]/g, ' ');
    i += taken.length;
  }
  return result;
}

/** Index after the quote that closes the one at `open`: doubled quotes and backslashes do not. */
function endOfQuote(sql: string, open: number): number {
  const quote = sql[open]!;
  for (let i = open + 1; i < sql.length; i++) {
    if (sql[i] === '\\') i++;
    else if (sql[i] === quote && sql[i + 1] === quote) i++;
    else if (sql[i] === quote) return i + 1;
  }
  return sql.length;
}

const GO_UNITS: Readonly<Record<string, number>> = {h: 3600, m: 60, s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9};

/** Seconds of a duration as Go writes it ('1h30m'); there are no days. */
function goDuration(text: string): number {
  const bare = text.replaceAll(/^['"]+|['"]+$/g, '');
  const parts = [...bare.matchAll(/(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)/g)];
  const width = Math.round(parts.reduce((sum, [, count, unit]) => sum + Number(count) * GO_UNITS[unit!]!, 0));
  if (parts.map(([part]) => part).join('') !== bare || width <= 0) {
    throw new TypeError(`not a duration that $__timeGroup takes: ${text}`);
  }
  return width;
}
