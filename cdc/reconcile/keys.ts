import {chName} from '../sink/clickhouse.ts';
import type {ColumnSchema, TableSchema} from '../source/table-schema.ts';

/** A column's name in the target table, quoted. */
export const inTarget = ({target}: Pick<ColumnSchema, 'target'>): string => chName(target);

/** The texts of a framed key's columns, in key order: `1:52:ab` → ['5', 'ab']. Lengths are in bytes; `n` is NULL. */
export function keyTexts(table: TableSchema, key: string): (string | null)[] {
  const bytes = Buffer.from(key);
  let at = 0;
  return table.keyColumns.map(() => {
    if (bytes[at] === 0x6e) {
      at += 1;
      return null;
    }
    const start = bytes.indexOf(':', at) + 1;
    at = start + Number(bytes.toString('latin1', at, start - 1));
    return bytes.toString('utf8', start, at);
  });
}

/** The key for people: JSON of texts. */
export const keyJson = (table: TableSchema, key: string): string => {
  const texts = keyTexts(table, key);
  return JSON.stringify(Object.fromEntries(table.definition.key.map((name, i) => [name, texts[i]])));
};

const AS_WRITTEN =
  'int2 int4 int8 oid numeric money bool uuid text varchar bpchar char name citext date timestamp timestamptz time timetz interval inet cidr macaddr macaddr8 bit varbit pg_lsn'.split(
    ' ',
  );
/**
 * Types whose text for comparisons tells PostgreSQL the value again, and how. Times are read in UTC, as they were
 * written. Others may have a text that means another value when it is read (seg's has), or no operator that compares
 * a domain with itself (an enum's), and are never looked up by it.
 */
const INPUT: Readonly<Record<string, (text: string) => string>> = {
  ...Object.fromEntries(AS_WRITTEN.map(name => [name, (text: string) => text])),
  bytea: text => `\\x${text}`,
  float4: text => float(text, bytes => bytes.readFloatBE()),
  float8: text => float(text, bytes => bytes.readDoubleBE()),
};
const inputOf = ({type}: ColumnSchema): ((text: string) => string) | undefined => {
  return type.kind === 'b' && !type.array ? INPUT[type.name] : undefined;
};

function float(text: string, read: (bytes: Buffer) => number): string {
  if (text === 'nan') return 'NaN';
  const value = read(Buffer.from(text, 'hex'));
  return Object.is(value, -0) ? '-0' : String(value);
}

/**
 * For each key column the values of these keys as PostgreSQL reads them, so that rows can be looked up by index;
 * undefined where the key's text does not tell them.
 */
export function keyParameters(table: TableSchema, keys: readonly string[]): string[][] | undefined {
  const inputs = table.keyColumns.map(index => inputOf(table.columns[index]!));
  const rows = keys.map(key => keyTexts(table, key)).filter(texts => texts.every(text => text !== null));
  const lists = inputs.flatMap((input, i) => (input ? [rows.map(texts => input(texts[i]!))] : []));
  return lists.length === inputs.length ? lists : undefined;
}
