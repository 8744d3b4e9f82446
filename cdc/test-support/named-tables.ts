import {pgLiteral, pgName} from '../source/table-schema.ts';

/** A table whose every name is given. */
export interface Named {
  readonly schema: string;
  readonly table: string;
  /** An integer and a text. */
  readonly key: readonly [string, string];
  readonly columns: readonly string[];
  /** Of the table's enum type. */
  readonly type: string;
  readonly labels: readonly string[];
  /** REPLICA IDENTITY FULL: old rows come whole. */
  readonly full?: boolean;
}

/** Columns take these in turn. Values of the large ones are stored out of line, and differ from row to row. */
const KINDS: readonly {
  readonly type: (of: Named) => string;
  readonly value: (of: Named) => string;
  readonly large?: boolean;
}[] = [
  {type: () => 'text', value: () => `repeat(md5(i::text), 90)`, large: true},
  {type: of => pgName(of.schema, of.type), value: of => `(${labelsOf(of)})[1 + i % ${of.labels.length}]`},
  {type: () => 'bytea', value: () => `decode(repeat(md5(i::text), 90), 'hex')`, large: true},
  {type: () => 'text[]', value: of => `ARRAY[${of.labels.map(pgLiteral).join(', ')}, i::text, NULL]`},
  {type: () => 'numeric(12,3)', value: () => 'i / 7.0'},
  {
    type: () => 'timestamptz',
    value: () => `'2026-01-01 00:00:00.000001+00'::timestamptz + i * interval '1 s'`,
  },
];
const labelsOf = (of: Named): string =>
  `ARRAY[${of.labels.map(pgLiteral).join(', ')}]::${pgName(of.schema, of.type)}[]`;

export const relation = ({schema, table}: Named): string => pgName(schema, table);
const kindOf = (i: number): (typeof KINDS)[number] => KINDS[i % KINDS.length]!;

/** The table in a schema of its own, with its type and four rows. */
export function ddl(of: Named): string {
  const large = of.columns.filter((_, i) => kindOf(i).large);
  return `
    CREATE SCHEMA IF NOT EXISTS ${pgName(of.schema)};
    CREATE TYPE ${pgName(of.schema, of.type)} AS ENUM (${of.labels.map(pgLiteral).join(', ')});
    CREATE TABLE ${relation(of)} (${pgName(of.key[0])} int, ${pgName(of.key[1])} text,
      ${of.columns.map((name, i) => `${pgName(name)} ${kindOf(i).type(of)}`).join(', ')}, touched int,
      PRIMARY KEY (${pgName(of.key[1])}, ${pgName(of.key[0])}));
    ${large.map(name => `ALTER TABLE ${relation(of)} ALTER ${pgName(name)} SET STORAGE EXTERNAL;`).join('\n')}
    ALTER TABLE ${relation(of)} REPLICA IDENTITY ${of.full ? 'FULL' : 'DEFAULT'};
    ${insert(of, 1, 4)}`;
}

/** Rows of these numbers, which are the first column of their key. */
export const insert = (of: Named, from: number, to: number): string =>
  `INSERT INTO ${relation(of)} SELECT i, ${pgLiteral(of.schema)} || i, ${of.columns.map((_, i) => kindOf(i).value(of)).join(', ')}, 0
   FROM generate_series(${from}, ${to}) i;`;

/** Rows of the snapshot and of the stream: touched with large values unchanged, moved to another key, deleted. */
export const changes = (of: Named): string => `
  ${insert(of, 5, 8)}
  UPDATE ${relation(of)} SET touched = 1 WHERE ${pgName(of.key[0])} IN (1, 5);
  UPDATE ${relation(of)} SET ${pgName(of.key[0])} = ${pgName(of.key[0])} + 100 WHERE ${pgName(of.key[0])} IN (2, 6);
  DELETE FROM ${relation(of)} WHERE ${pgName(of.key[0])} IN (3, 7);`;
