import fc from 'fast-check';
import {pgName} from '../source/table-schema.ts';
import {type Column, sqlName} from './catalog.ts';
import {COLUMN_TYPES, KEY_TYPES, keySql, valueSql} from './values.ts';

/** A table that a history begins with. */
export interface TableSpec {
  readonly schema: string;
  readonly name: string;
  /** Indexes into KEY_TYPES. */
  readonly key: readonly number[];
  readonly columns: readonly {type: number; notNull: boolean; external: boolean}[];
  readonly identity: 'default' | 'full' | 'index';
  readonly partitioned: boolean;
  readonly rows: number;
}

/** Names that are hard to get through; the first are plain. The place of a table in its history keeps them apart. */
const TABLE_NAMES = [
  't',
  'Order Lines',
  'select',
  'naïve"x',
  "it's",
  'back\\slash',
  'tick`ed',
  'per%cent',
  'a-b',
];
const COLUMN_NAMES = [
  'c',
  'Group',
  "o'clock",
  'sp ace',
  'qu"ote',
  'back\\slash',
  'tick`',
  '漢字',
  'after',
  'a.b',
  '$1',
];
/** Of those that `COLUMN_TYPES` names, these are also made too large for a page. */
export const LARGE_TYPES: readonly string[] = ['text', 'jsonb', 'json', 'bytea'];

const nat = (max: number): fc.Arbitrary<number> => fc.nat({max});
const rarely = (one: number): fc.Arbitrary<boolean> => nat(one - 1).map(n => n === one - 1);

const table: fc.Arbitrary<Omit<TableSpec, 'name'> & {name: number}> = fc.record({
  schema: rarely(4).map(odd => (odd ? 'Odd schema' : 'public')),
  name: fc.oneof({weight: 2, arbitrary: fc.constant(0)}, {weight: 1, arbitrary: nat(TABLE_NAMES.length - 1)}),
  key: fc.array(nat(KEY_TYPES.length - 1), {minLength: 1, maxLength: 2}),
  columns: fc.array(
    fc.record({
      type: fc.oneof(
        {weight: 2, arbitrary: nat(COLUMN_TYPES.length - 1)},
        {
          weight: 1,
          arbitrary: fc.constantFrom(...LARGE_TYPES.map(type => COLUMN_TYPES.indexOf(type as 'text'))),
        },
      ),
      notNull: rarely(3),
      external: fc.boolean(),
    }),
    {minLength: 1, maxLength: 8, size: 'max'},
  ),
  identity: fc.oneof(
    {weight: 3, arbitrary: fc.constant('default' as const)},
    {weight: 1, arbitrary: fc.constant('full' as const)},
    {weight: 1, arbitrary: fc.constant('index' as const)},
  ),
  partitioned: rarely(5),
  rows: nat(60),
});

/** One to four tables. */
export const tables: fc.Arbitrary<TableSpec[]> = fc
  .array(table, {minLength: 1, maxLength: 4, size: 'max'})
  .map(specs => specs.map((spec, i) => ({...spec, name: `${TABLE_NAMES[spec.name]}${i + 1}`})));

export const columnName = (place: number): string =>
  place % 3 === 2 ? `${COLUMN_NAMES[place % COLUMN_NAMES.length]}${place}` : `c${place}`;

export function columnOf(name: string, type: string, notNull: boolean, external: boolean): Column {
  const base = /^[a-z0-9_]+|"char"/.exec(type)?.[0].replaceAll('"', '') ?? type;
  const kind = base === 'mood' ? 'e' : base === 'pair' ? 'c' : 'b';
  const named = {int4range: 'int4range', few: 'int4', char: 'bpchar'}[base] ?? base;
  return {
    name,
    type,
    notNull,
    external,
    generated: '',
    base: {
      name: type === '"char"' ? 'char' : named,
      kind,
      modifier: type.includes('(') ? 4 : -1,
      array: type.endsWith('[]'),
    },
  };
}

const columnSql = ({name, type, notNull}: Column): string =>
  `${pgName(name)} ${type}${notNull ? ' NOT NULL' : ''}`;

/** The statements that make a table with its first rows. */
export function createSql(spec: TableSpec): string[] {
  const {key, identity, rows} = spec;
  const partitioned = spec.partitioned && identity !== 'index';
  const name = sqlName(spec);
  const keys = key.map((type, i) => columnOf(`k${i}`, KEY_TYPES[type]!, true, false));
  const others = spec.columns.map(({type, notNull, external}, i) => {
    const sql = COLUMN_TYPES[type]!;
    return columnOf(columnName(i), sql, notNull, external && LARGE_TYPES.includes(sql));
  });
  const extra = identity === 'index' ? [columnOf('ident', 'uuid', true, false)] : [];
  const columns = [...keys, ...others, ...extra];
  const list = (given: readonly Column[]): string => given.map(columnSql).join(', ');
  const primary = keys.map(column => pgName(column.name)).join(', ');
  const part = (i: number): string => pgName(spec.schema, `${spec.name}_p${i}`);
  const external = others
    .filter(column => column.external)
    .map(column => `ALTER COLUMN ${pgName(column.name)} SET STORAGE EXTERNAL`)
    .join(', ');
  const store = (table: string): string[] => (external ? [`ALTER TABLE ${table} ${external}`] : []);
  const full = (table: string): string[] =>
    identity === 'full' ? [`ALTER TABLE ${table} REPLICA IDENTITY FULL`] : [];
  const values = columns.map(column =>
    keys.includes(column) || extra.includes(column) ? keySql(column, 'n') : valueSql(column, 'n'),
  );
  return [
    `CREATE TABLE ${name} (${list(columns)}, PRIMARY KEY (${primary}))${partitioned ? ` PARTITION BY HASH (${pgName('k0')})` : ''}`,
    ...store(name),
    ...full(name),
    ...(partitioned
      ? [
          // One of the partitions has its columns in another order.
          `CREATE TABLE ${part(0)} PARTITION OF ${name} FOR VALUES WITH (MODULUS 3, REMAINDER 0)`,
          `CREATE TABLE ${part(1)} PARTITION OF ${name} FOR VALUES WITH (MODULUS 3, REMAINDER 1)`,
          `CREATE TABLE ${part(2)} (${list([...columns].reverse())})`,
          ...store(part(2)),
          `ALTER TABLE ${name} ATTACH PARTITION ${part(2)} FOR VALUES WITH (MODULUS 3, REMAINDER 2)`,
          ...[0, 1, 2].flatMap(i => full(part(i))),
        ]
      : []),
    ...(identity === 'index'
      ? [
          `CREATE UNIQUE INDEX ${pgName(`${spec.name}_ident`)} ON ${name} (${pgName('ident')})`,
          `ALTER TABLE ${name} REPLICA IDENTITY USING INDEX ${pgName(`${spec.name}_ident`)}`,
        ]
      : []),
    `INSERT INTO ${name} SELECT ${values.join(', ')} FROM generate_series(1::bigint, ${rows}) n`,
  ];
}
