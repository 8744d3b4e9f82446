import type {Settings} from '../settings/settings.ts';
import {type TableSchema, targetKey} from '../source/table-schema.ts';
import {chLiteral, chName} from './clickhouse.ts';
import {targetTable} from './target.ts';

/** A row whose values are looked up. */
export interface Wanted {
  /** The key as in the topic: JSON. */
  readonly key: string;
  readonly unchanged: readonly string[];
}

/** Columns that some of the rows lack. */
export const namesOf = (table: TableSchema, incomplete: readonly Wanted[]): string[] =>
  table.columns
    .map(({name}) => name)
    .filter(name => incomplete.some(({unchanged}) => unchanged.includes(name)));

/** SQL over the target's rows with these keys: `t` is the target, `key` the row's key as in the topic. */
export function lookUp(
  settings: Settings,
  table: TableSchema,
  wanted: readonly Wanted[],
  modifier: 'FINAL' | '',
) {
  const keyColumns = table.keyColumns.map(index => table.columns[index]!);
  const keys = [...new Set(wanted.map(row => row.key))];
  // Beside a column `t`, `t.null` would be that column's subcolumn, and not the column `null` of a table `t`.
  const free = (name: string): string =>
    table.columns.some(column => column.name === name || column.target === name) ? free(`${name}_`) : name;
  const [t, k, whole] = [free('t'), free('k'), free('_key')];
  const structure = [
    `${whole} String`,
    ...keyColumns.map(({name, stored}) => `${chName(name)} ${stored.input?.type ?? stored.column}`),
  ];
  const data = keys.map(key => `{"${whole}":${JSON.stringify(key)},${key.slice(1)}`).join('\n');
  const read = keyColumns.map(
    ({name, stored}) => stored.input?.expr(`${k}.${chName(name)}`) ?? `${k}.${chName(name)}`,
  );
  const target = targetTable(settings, table);
  const own = keyColumns.map(column => `${t}.${chName(column.target)}`);
  const literal = chLiteral(data);
  const from = (what: string): string =>
    `WITH ${k} AS (SELECT * FROM format(JSONEachRow, ${chLiteral(structure.join(', '))}, ${literal}))
     SELECT ${what}
     FROM (SELECT * FROM ${target} ${modifier} WHERE (${targetKey(table)
       .map(name => chName(name))
       .join(', ')}) IN (SELECT ${read.join(', ')} FROM ${k})) AS ${t}
     INNER JOIN ${k} ON ${own.map((column, i) => `${column} = ${read[i]}`).join(' AND ')}`;
  const value = (name: string): string =>
    `${t}.${chName(table.columns.find(column => column.name === name)!.target)}`;
  return {t, from, value, key: `${k}.${whole}`};
}
