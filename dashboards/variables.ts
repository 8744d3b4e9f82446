import {readArguments} from './macros.ts';

/** A dashboard variable's chosen values; null is All. */
export type Chosen = Readonly<Record<string, readonly string[] | null>>;

const ALL = '$__conditionalAll(';

/**
 * What Grafana's browser part does with a query before the plugin's backend sees it: `$__conditionalAll(condition,
 * $name)` becomes the condition, or 1=1 where All or nothing is chosen; `$name`, `${name}` and `${name:singlequote}`
 * become values. Names that are no variables stay. Throws TypeError for a format it does not know.
 */
export function replaceVariables(sql: string, chosen: Chosen): string {
  let text = sql;
  for (let at = text.lastIndexOf(ALL); at >= 0; at = text.lastIndexOf(ALL)) {
    const {given, end} = readArguments(text, at + ALL.length - 1);
    const name = /^\$(\w+)$/.exec(given[1] ?? '')?.[1];
    if (given.length !== 2 || name === undefined) {
      throw new TypeError(
        `$__conditionalAll takes a condition and a plain $variable: ${text.slice(at, end)}`,
      );
    }
    text = text.slice(0, at) + (isAll(chosen[name]) ? '1=1' : given[0]) + text.slice(end);
  }
  return text.replaceAll(/\$\{(\w+)(?::(\w+))?\}|\$(\w+)/g, (whole, braced, format, plain) => {
    const values = chosen[braced ?? plain];
    if (values === undefined || values === null) return whole;
    if (format === 'singlequote') return values.map(quote).join(',');
    if (format !== undefined) throw new TypeError(`${whole}: only :singlequote is known here`);
    return values.length === 1 ? values[0]! : `'${values.join("','")}'`;
  });
}

const isAll = (values: Chosen[string] | undefined) =>
  values === null || (values !== undefined && values.join('') === '');
const quote = (value: string) => `'${value.replaceAll("'", "\\'")}'`;
