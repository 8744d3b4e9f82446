import {pgLiteral, pgName} from '../source/table-schema.ts';
import {type Column, isUnique, sqlName, type Table, writable} from './catalog.ts';
import {type RowContext, rowChanges} from './row-changes.ts';
import type {SchemaStep, Step} from './steps.ts';
import {createSql, LARGE_TYPES, type TableSpec} from './tables.ts';
import {COLUMN_TYPES, KEY_TYPES, valueSql} from './values.ts';

export interface SchemaContext extends RowContext {
  readonly publication: string;
}

const alter = (table: Table, change: string): string => `ALTER TABLE ${sqlName(table)} ${change}`;

/** A type from the numbers of a step; an array of an enum may be among them. */
const typeOf = ({salt}: Step): string => COLUMN_TYPES[salt % COLUMN_TYPES.length]!;

/** A column that is neither of the key nor of the identity, where the table has one that fits. */
function otherColumn(
  table: Table,
  {mask}: Step,
  fits: (column: Column) => boolean = () => true,
): Column | undefined {
  const free = writable(table).filter(column => !isUnique(table, column) && fits(column));
  return free[mask % Math.max(1, free.length)];
}

/** Changes that keep every value: the type before, and the one after. */
const WIDER: Readonly<Record<string, string>> = {
  smallint: 'int4',
  integer: 'int8',
  real: 'float8',
  'character varying(40)': 'varchar(80)',
  'character varying(80)': 'text',
  'numeric(12,3)': 'numeric(16,3)',
  'numeric(30,10)': 'numeric(34,10)',
  'numeric(16,3)': 'numeric',
};

/** Defaults that stay the same for each row. */
const CONSTANTS: readonly (readonly [type: string, value: string])[] = [
  ['int4', '5'],
  ['text', "'de''fault'"],
  ['timestamptz', "'2020-01-01 00:00:00.5+00'"],
  ['numeric(12,3)', '1.5'],
  ['bool', 'true'],
  ['jsonb', `'{"a": 1}'`],
];
const VOLATILE: readonly (readonly [type: string, value: string])[] = [
  ['timestamptz', 'clock_timestamp()'],
  ['uuid', 'gen_random_uuid()'],
  ['float8', 'random()'],
];

function newTable(step: Step, schema: string, name: string): TableSpec {
  const {salt, mask, count} = step;
  return {
    schema,
    name,
    key: [salt % KEY_TYPES.length],
    columns: [mask, mask >> 5, salt].map((n, i) => ({
      type: n % COLUMN_TYPES.length,
      notNull: (mask >> i) % 3 === 0,
      external: (mask >> i) % 2 === 0,
    })),
    identity: (['default', 'full', 'index'] as const)[salt % 3]!,
    partitioned: salt % 5 === 0,
    rows: count % 40,
  };
}

const publish = (publication: string, table: Pick<Table, 'schema' | 'name'>, verb: 'ADD' | 'DROP'): string =>
  `ALTER PUBLICATION ${pgName(publication)} ${verb} TABLE ${sqlName(table)}`;

type Making = (context: SchemaContext, step: Step) => readonly string[] | Promise<readonly string[]>;

/** Each kind of change as the statements that make it; more than one of them is one transaction. */
const MAKINGS: Readonly<Record<SchemaStep, Making>> = {
  'add column': ({table, fresh}, step) => {
    const name = pgName(step.mask % 4 === 0 ? `new "${fresh(1)}` : `a${fresh(1)}`);
    const type = typeOf(step);
    const add = alter(table, `ADD COLUMN ${name} ${type}`);
    return LARGE_TYPES.includes(type) && step.mask % 2 === 0 && !table.partitioned
      ? [add, alter(table, `ALTER COLUMN ${name} SET STORAGE EXTERNAL`)]
      : [add];
  },
  'add column with default': ({table, fresh}, {salt, mask}) => {
    const [type, value] = CONSTANTS[salt % CONSTANTS.length]!;
    const name = `d${fresh(1)}`;
    const add = alter(
      table,
      `ADD COLUMN ${name} ${type}${mask % 2 === 0 ? ' NOT NULL' : ''} DEFAULT ${value}`,
    );
    // Rows that were there keep the value; later ones do not get it any more.
    return mask % 3 === 0 ? [add, alter(table, `ALTER COLUMN ${name} DROP DEFAULT`)] : [add];
  },
  'add column with volatile default': ({table, fresh}, {salt}) => {
    const [type, value] = VOLATILE[salt % VOLATILE.length]!;
    return [alter(table, `ADD COLUMN v${fresh(1)} ${type} NOT NULL DEFAULT ${value}`)];
  },
  'drop column': ({table}, step) => {
    const column = otherColumn(table, step);
    return column ? [alter(table, `DROP COLUMN ${pgName(column.name)}`)] : [];
  },
  'rename column': ({table, fresh}, step) => {
    const column = step.mask % 5 === 0 ? table.columns[0] : otherColumn(table, step);
    return column ? [alter(table, `RENAME COLUMN ${pgName(column.name)} TO r${fresh(1)}`)] : [];
  },
  'widen a type': ({table}, step) => {
    const column = otherColumn(table, step, ({type}) => WIDER[type] !== undefined);
    return column ? [alter(table, `ALTER COLUMN ${pgName(column.name)} TYPE ${WIDER[column.type]}`)] : [];
  },
  'change a type': ({table}, step) => {
    const column = otherColumn(table, step);
    if (!column) return [];
    const name = pgName(column.name);
    const [type, using] = step.salt % 2 === 0 ? ['text', `${name}::text`] : ['int4', `length(${name}::text)`];
    return [alter(table, `ALTER COLUMN ${name} TYPE ${type} USING ${using}`)];
  },
  'set not null': ({table}, step) => {
    // Times may hold what ClickHouse has no place for; in a column that may not be NULL that sets a table aside.
    const column = otherColumn(
      table,
      step,
      ({notNull, base}) => !notNull && !/^(date|timestamp)/.test(base.name),
    );
    if (!column) return [];
    const name = pgName(column.name);
    const value = valueSql({...column, notNull: true}, `${step.salt}::bigint`);
    return [
      `UPDATE ${sqlName(table)} SET ${name} = ${value} WHERE ${name} IS NULL`,
      alter(table, `ALTER COLUMN ${name} SET NOT NULL`),
    ];
  },
  'drop not null': ({table}, step) => {
    const column = otherColumn(table, step, ({notNull}) => notNull);
    return column ? [alter(table, `ALTER COLUMN ${pgName(column.name)} DROP NOT NULL`)] : [];
  },
  'rename and back': async (context, step) => {
    const {table, fresh} = context;
    const away = {...table, name: `away${fresh(1)}`};
    const between = await rowChanges('insert', {...context, table: away}, {...step, count: step.count % 5});
    return [
      alter(table, `RENAME TO ${pgName(away.name)}`),
      ...(step.mask % 2 === 0 ? between : []),
      alter(away, `RENAME TO ${pgName(table.name)}`),
    ];
  },
  'make anew': ({table, tables, publication}, step) => {
    if (tables.length === 1) return []; // a pipeline that starts without any table is refused
    return [
      `DROP TABLE ${sqlName(table)}`,
      ...createSql(newTable(step, table.schema, table.name)),
      publish(publication, table, 'ADD'),
    ];
  },
  'create table': ({fresh, publication, tables}, step) => {
    if (tables.length > 6) return [];
    const spec = newTable(step, 'public', `n${fresh(1)}`);
    return [...createSql(spec), publish(publication, spec, 'ADD')];
  },
  'add enum value': ({fresh}) => [`ALTER TYPE mood ADD VALUE 'added ${fresh(1)}'`],
  'rename enum value': async ({fresh, read}, {at}) => {
    const labels = await read('SELECT unnest(enum_range(NULL::mood))::text');
    const label = labels[at % Math.max(1, labels.length)];
    return label === undefined
      ? []
      : [`ALTER TYPE mood RENAME VALUE ${pgLiteral(label)} TO 'renamed ${fresh(1)}'`];
  },
  'change the key': async ({table, fresh, read}, {mask}) => {
    const [name] = await read(
      `SELECT conname FROM pg_constraint WHERE contype = 'p' AND conrelid = ${pgLiteral(sqlName(table))}::regclass`,
    );
    if (name === undefined) return [];
    const added = `id${fresh(1)}`;
    const key =
      table.primaryKey.length > 1 && mask % 2 === 0
        ? [...table.primaryKey].reverse()
        : table.partitioned
          ? [...table.primaryKey, added]
          : [added];
    return [
      ...(key.includes(added)
        ? [alter(table, `ADD COLUMN ${added} uuid NOT NULL DEFAULT gen_random_uuid()`)]
        : []),
      alter(table, `DROP CONSTRAINT ${pgName(name)}`),
      alter(table, `ADD PRIMARY KEY (${key.map(column => pgName(column)).join(', ')})`),
    ];
  },
  'change the identity': async ({table, read}) => {
    const to = table.identity === 'f' ? 'DEFAULT' : 'FULL';
    const leaves = await read(
      `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ${pgLiteral(sqlName(table))}::regclass ORDER BY 1`,
    );
    return [sqlName(table), ...leaves].map(name => `ALTER TABLE ${name} REPLICA IDENTITY ${to}`);
  },
  'leave the publication and return': async (context, step) => {
    const {table, publication} = context;
    return [
      publish(publication, table, 'DROP'),
      ...(await rowChanges('insert', context, {...step, count: step.count % 5})),
      publish(publication, table, 'ADD'),
    ];
  },
};

export const isSchemaStep = (does: Step['does']): does is SchemaStep => does in MAKINGS;

/** The statements of a step; none where there is nothing it could change. */
export async function schemaChanges(
  does: SchemaStep,
  context: SchemaContext,
  step: Step,
): Promise<readonly string[]> {
  return MAKINGS[does](context, step);
}
