import {pgLiteral, pgName} from '../source/table-schema.ts';
import {type Column, isUnique, keyNames, sqlName, type Table, writable} from './catalog.ts';
import type {RowStep, Step} from './steps.ts';
import {keySql, movedSql, valueSql} from './values.ts';

export interface RowContext {
  readonly table: Table;
  readonly tables: readonly Table[];
  /** Numbers that no key was made of yet, in a row. */
  readonly fresh: (count: number) => number;
  /** Texts of the first column of a query. */
  readonly read: (sql: string) => Promise<string[]>;
}

/** Rows of a large step of another kind than an insert: enough to fill batches, without filling the time. */
const MOST_CHANGED = 60;
const names = (columns: readonly string[]): string => columns.map(name => pgName(name)).join(', ');

/** Rows that no other session holds, so that a step seldom waits for one. */
function rowsOf(table: Table, {at, count}: Step): string {
  const [name, key] = [sqlName(table), names(table.primaryKey)];
  const start = `(SELECT ${at} % greatest(count(*), 1) FROM ${name})`;
  return `(${key}) IN (SELECT ${key} FROM ${name} ORDER BY ${key} OFFSET ${start} LIMIT ${
    1 + (count % MOST_CHANGED)
  } FOR UPDATE SKIP LOCKED)`;
}

/** A row's number for its values: differs from row to row. */
const numbered = (table: Table, salt: number): string =>
  `(abs(hashtext(concat(${names(table.primaryKey)})) % 1000) + ${salt})::bigint`;

/** Values of a new row; `n` makes its key, `x` its other values. */
const newValues = (table: Table, n: string, x: string): string =>
  writable(table)
    .map(column => (isUnique(table, column) ? uniqueSql(table, column, n) : valueSql(column, x)))
    .join(', ');

/** The first column of a composite key is shared by several rows. */
function uniqueSql(table: Table, column: Column, n: string): string {
  const composite = table.primaryKey.length > 1 && table.primaryKey[0] === column.name;
  return keySql(column, composite ? `((${n}) / 4)` : n);
}

const insertSql = (table: Table, from: number, count: number, salt: number, rest = ''): string =>
  `INSERT INTO ${sqlName(table)} (${names(writable(table).map(({name}) => name))}) SELECT ${newValues(
    table,
    'n',
    `n + ${salt}`,
  )} FROM generate_series(${from}::bigint, ${from + count - 1}) n${rest}`;

/** Columns beside the keys, some of them; one whose large values would be sent again is chosen less often. */
function chosen(table: Table, {mask}: Step): Column[] {
  const free = writable(table).filter(column => !isUnique(table, column));
  const picked = free.filter((column, i) => ((mask >> (i * 2)) & (column.external ? 3 : 1)) === 1);
  return picked.length > 0 ? picked : free.filter(column => !column.external).slice(0, 1);
}

const assignments = (table: Table, columns: readonly Column[], salt: number): string =>
  columns.map(column => `${pgName(column.name)} = ${valueSql(column, numbered(table, salt))}`).join(', ');

/** The columns that tell rows apart in the stream, or those of the primary key; one or all of them. */
function keyColumns(table: Table, {mask}: Step): Column[] {
  const own = mask % 3 === 0 ? keyNames(table) : table.primaryKey;
  const columns = table.columns.filter(({name}) => own.includes(name));
  return mask % 2 === 0 ? columns.slice(-1) : columns;
}

const moved = (columns: readonly Column[], by: number): string =>
  columns.map(column => `${pgName(column.name)} = ${movedSql(column, pgName(column.name), by)}`).join(', ');

type Making = (context: RowContext, step: Step) => readonly string[] | Promise<readonly string[]>;

/** Each kind of change of rows as the statements that make it. More than one of them is one transaction. */
const MAKINGS: Readonly<Partial<Record<RowStep, Making>>> = {
  insert: ({table, fresh}, {count, salt}) => [insertSql(table, fresh(count + 1), count + 1, salt)],
  copy: ({table, fresh}, {count, salt}) => {
    const from = fresh(count + 1);
    const list = names(writable(table).map(({name}) => name));
    return [
      `COPY ${sqlName(table)} (${list}) FROM STDIN -- ${`SELECT ${newValues(table, 'n', `n + ${salt}`)} FROM generate_series(${from}::bigint, ${from + count}) n`}`,
    ];
  },
  update: ({table}, step) => {
    const columns = chosen(table, step);
    if (columns.length === 0) return [];
    return [
      `UPDATE ${sqlName(table)} SET ${assignments(table, columns, step.salt)} WHERE ${rowsOf(table, step)}`,
    ];
  },
  'touch nothing': ({table}, step) => {
    const column = pgName(writable(table)[step.salt % writable(table).length]!.name);
    return [`UPDATE ${sqlName(table)} SET ${column} = ${column} WHERE ${rowsOf(table, step)}`];
  },
  delete: ({table}, step) => [
    `DELETE FROM ${sqlName(table)} WHERE ${rowsOf(table, {...step, count: step.count % 20})}`,
  ],
  upsert: ({table}, step) => {
    const columns = chosen(table, step);
    const rest =
      columns.length === 0 || step.mask % 4 === 0
        ? ' ON CONFLICT DO NOTHING'
        : ` ON CONFLICT (${names(table.primaryKey)}) DO UPDATE SET ${columns
            .map(({name}) => `${pgName(name)} = EXCLUDED.${pgName(name)}`)
            .join(', ')}`;
    return [insertSql(table, 1 + (step.at % 80), 1 + (step.count % 12), step.salt, rest)];
  },
  'change keys': ({table}, step) => [
    `UPDATE ${sqlName(table)} SET ${moved(keyColumns(table, step), 1_000_000 + step.salt)} WHERE ${rowsOf(
      table,
      {
        ...step,
        count: step.count % 12,
      },
    )}`,
  ],
  // Far away and nearly back: most of the new keys are old keys of other rows.
  'shift keys': ({table}, step) => {
    const columns = keyColumns(table, {...step, mask: step.mask | 1});
    const set = (by: number): string => `UPDATE ${sqlName(table)} SET ${moved(columns, by)}`;
    return [set(50_000_000), set(-50_000_000 + 1 + (step.count % 10))];
  },
  'swap keys': async ({table, fresh, read}, step) => {
    const column = table.columns.find(({name}) => name === table.primaryKey.at(-1));
    if (!column || table.primaryKey.length > 1) return [];
    const [a, b] = await keysOf(table, read, step, 2);
    if (a === undefined || b === undefined) return [];
    const name = pgName(column.name);
    const aside = keySql(column, String(fresh(1)));
    const set = (value: string, where: string): string =>
      `UPDATE ${sqlName(table)} SET ${name} = ${value} WHERE ${name} = ${where}`;
    const [first, second] = [a, b].map(value => `${pgLiteral(value)}::${column.type}`);
    return [set(aside, first!), set(first!, second!), set(second!, aside)];
  },
  'use a key again': async ({table, fresh, read}, step) => {
    const column = table.columns.find(({name}) => name === table.primaryKey.at(-1));
    if (!column || table.primaryKey.length > 1) return [];
    const [key] = await keysOf(table, read, step, 1);
    if (key === undefined) return [];
    const literal = `${pgLiteral(key)}::${column.type}`;
    const where = `WHERE ${pgName(column.name)} = ${literal}`;
    const n = fresh(1);
    const values = writable(table).map(own =>
      own === column
        ? literal
        : isUnique(table, own)
          ? keySql(own, `${n}::bigint`)
          : valueSql(own, `${n + step.salt}::bigint`),
    );
    const leave =
      step.mask % 2 === 0
        ? `DELETE FROM ${sqlName(table)} ${where}`
        : `UPDATE ${sqlName(table)} SET ${pgName(column.name)} = ${keySql(column, String(fresh(1)))} ${where}`;
    return [
      leave,
      `INSERT INTO ${sqlName(table)} (${names(writable(table).map(({name}) => name))}) VALUES (${values.join(', ')})`,
    ];
  },
  truncate: ({table}) => [`TRUNCATE ${sqlName(table)}`],
  'truncate several': ({tables, table}, {mask}) => [
    `TRUNCATE ${[table, ...tables.filter((other, i) => other !== table && (mask >> i) & 1)].map(sqlName).join(', ')} CASCADE`,
  ],
  'truncate and insert': ({table, fresh}, {count, salt}) => [
    insertSql(table, fresh(3), 3, salt),
    `TRUNCATE ${sqlName(table)}`,
    insertSql(table, 1, 1 + (count % 30), salt),
  ],
};

/** Keys of rows, as text, in the order of keys. */
async function keysOf(table: Table, read: RowContext['read'], {at}: Step, count: number): Promise<string[]> {
  const [name, key] = [sqlName(table), names(table.primaryKey)];
  const start = `(SELECT ${at} % greatest(count(*), 1) FROM ${name})`;
  return read(
    `SELECT (${key})::text FROM ${name} ORDER BY ${key} OFFSET ${start} LIMIT ${count} FOR UPDATE SKIP LOCKED`,
  );
}

/** The statements of a step; none where there is nothing it could change. */
export async function rowChanges(does: RowStep, context: RowContext, step: Step): Promise<readonly string[]> {
  if (context.table.primaryKey.length === 0) return [];
  return (await MAKINGS[does]?.(context, step)) ?? [];
}
