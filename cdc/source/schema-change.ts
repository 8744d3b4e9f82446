import {Bytes} from '../types/bytes.ts';
import {precisionAndScale} from '../types/numeric.ts';
import type {CatalogTable} from './catalog.ts';
import {type ColumnSchema, type TableSchema, tableSchema} from './table-schema.ts';
import type {CapturedTable} from './tables.ts';

/** A column that came to a table in use. */
export interface AddedColumn {
  readonly column: ColumnSchema;
  /** What the rows before it show, as the encoder writes it; undefined for NULL. */
  readonly missing: string | undefined;
}

/** What is to be done about a table that is described otherwise than before. */
export type SchemaChange =
  | {readonly kind: 'none'}
  | {
      /** The target takes it as it is: columns are added or widened, all else is the view's affair. */
      readonly kind: 'in place';
      readonly next: TableSchema;
      readonly added: readonly AddedColumn[];
      readonly widened: readonly ColumnSchema[];
      /** In words, for people. */
      readonly text: string;
      /** Columns, as they were, that are not so any more: a view may use them. */
      readonly touched: readonly ColumnSchema[];
    }
  | {readonly kind: 'read again'; readonly text: string; readonly touched: readonly ColumnSchema[]};

export interface Circumstances {
  /** The table was rewritten by this command: values may be others, and no row says so. */
  readonly rewritten: boolean;
  /** The description comes from a look at the catalog, so what happened before it is not known by itself. */
  readonly late: boolean;
}

type Before = CapturedTable;
type After = CapturedTable;

/** Reasons to read the table again: the first that holds counts. */
const RULES: readonly ((before: Before, after: After, circumstances: Circumstances) => string | false)[] = [
  (before, after) =>
    keyNumbers(before.schema) !== keyNumbers(after.schema) &&
    `its key was (${before.schema.definition.key.join(', ')}) and is (${after.schema.definition.key.join(', ')})`,
  ({source: before}, {source: after}) =>
    before.published?.id !== after.published?.id &&
    'its place in the publication, column list or row filter changed',
  ({source: before}, {source: after}) => {
    const renamed = Object.entries(before.labels).find(
      ([oid, label]) => after.labels[oid] !== undefined && after.labels[oid] !== label,
    );
    return renamed !== undefined && `the enum value ${renamed[1]} was renamed to ${after.labels[renamed[0]]}`;
  },
  ({source: before}, {source: after}) =>
    Object.entries(before.attributes).some(
      ([oid, text]) => after.attributes[oid] !== undefined && after.attributes[oid] !== text,
    ) && 'a composite type that it uses was changed',
  ({source: before}, {source: after}) =>
    before.leaves.some(leaf => after.leaves.every(({oid}) => oid !== leaf.oid)) &&
    'a partition was dropped or detached',
  ({source: before}, {source: after}) =>
    after.leaves.some(leaf => !leaf.empty && before.leaves.every(({oid}) => oid !== leaf.oid)) &&
    'a partition with rows was attached',
  // No one publishes the TRUNCATE of a partition under its root's name.
  ({source: before}, {source: after}, {late}) =>
    late &&
    after.leaves.some(leaf => {
      const known = before.leaves.find(({oid}) => oid === leaf.oid);
      return known !== undefined && known.fileNode !== leaf.fileNode;
    }) &&
    'a partition was truncated or rewritten',
  (_before, _after, {rewritten}) => rewritten && 'its rows were rewritten',
];

const keyNumbers = ({columns, keyColumns}: TableSchema): string =>
  keyColumns.map(index => columns[index]!.number).join(',');

/**
 * What became of a table: `after` is how it would be captured if it were new. The answer depends on the arguments
 * alone, so a replay finds the same.
 */
export function compareTables(before: Before, after: After, circumstances: Circumstances): SchemaChange {
  const touched = before.schema.columns.filter(old => {
    const now = after.schema.columns.find(({number}) => number === old.number);
    return !now || now.name !== old.name || now.stored.column !== old.stored.column;
  });
  for (const rule of RULES) {
    const text = rule(before, after, circumstances);
    if (text !== false) return {kind: 'read again', text, touched};
  }
  return compareColumns(before, after, touched);
}

function compareColumns(before: Before, after: After, touched: readonly ColumnSchema[]): SchemaChange {
  const {definition} = before.schema;
  const gone = before.schema.columns.filter(
    old => !after.schema.columns.some(now => now.number === old.number),
  );
  const taken = new Set([...definition.dropped, ...before.schema.columns.map(column => column.target)]);
  const words = gone.map(({name}) => `column ${name} was dropped`);
  const added: {number: number; missing: string | undefined}[] = [];
  const widened: number[] = [];
  const columns = [];
  for (const now of after.schema.columns) {
    const {stored: _stored, inKey: _inKey, ...column} = now;
    const old = before.schema.columns.find(({number}) => number === now.number);
    if (!old) {
      const missing = missingValue(now, after.source);
      if (missing === 'unclear') {
        return {kind: 'read again', text: `column ${now.name} was added with a value of its own`, touched};
      }
      added.push({number: now.number, missing: missing.json});
      words.push(`column ${now.name} was added`);
      columns.push({...column, target: freeName(now, taken)});
      continue;
    }
    if (old.name !== now.name) words.push(`column ${old.name} was renamed to ${now.name}`);
    const fit = fits(old, now);
    // ClickHouse does not change the type of a column that its rows are sorted by.
    if (fit === 'other' || (fit === 'wider' && now.inKey)) {
      return {kind: 'read again', text: `column ${now.name} has another type`, touched};
    }
    if (fit === 'wider') words.push(`column ${now.name} holds more`);
    const opened = old.notNull && !now.notNull && !now.inKey;
    if (opened) words.push(`column ${now.name} may be NULL`);
    if (opened || fit === 'wider') widened.push(now.number);
    columns.push({...column, target: old.target, notNull: old.notNull && now.notNull});
  }
  const next = tableSchema({
    ...after.schema.definition,
    generation: definition.generation,
    dropped: [...definition.dropped, ...gone.map(({target}) => target)],
    columns,
  });
  if (next.id === before.schema.id) return {kind: 'none'};
  const withNumber = (number: number): ColumnSchema => next.columns.find(column => column.number === number)!;
  return {
    kind: 'in place',
    next,
    added: added.map(({number, missing}) => ({column: withNumber(number), missing})),
    widened: widened.map(withNumber),
    text: words.join(', ') || 'its columns are declared otherwise',
    touched,
  };
}

/** The names of dropped columns are still there in the target, and so are those before a renaming. */
function freeName({name, number}: ColumnSchema, taken: Set<string>): string {
  let target = name;
  for (let n = number; taken.has(target); n++) target = `${name}__${n}`;
  taken.add(target);
  return target;
}

/** What rows that were there before show in an added column. */
function missingValue(
  {name, number, stored}: ColumnSchema,
  source: CatalogTable,
): {json: string | undefined} | 'unclear' {
  const found = source.columns.find(column => column.number === number);
  // A stored generated column is computed for every row.
  if (found?.generated !== '') return 'unclear';
  const {missing} = found;
  if (missing === null) return {json: undefined};
  if (missing.unclear || missing.value === null) return 'unclear';
  const out = new Bytes(256);
  const text = Buffer.from(missing.value);
  const reason = stored.encode(out, text, 0, text.length);
  // What ClickHouse cannot hold is to be recorded for each row.
  return reason === undefined
    ? {json: `{${JSON.stringify(name)}:${out.view().toString('utf8')}}`}
    : 'unclear';
}

/** Types whose values, and their text, are those of another one when PostgreSQL does not rewrite the table for it. */
const SAME_TEXT: readonly (readonly string[])[] = [['varchar', 'text']];

/** Can the old column take the new one's values, where no row was rewritten? */
function fits(old: ColumnSchema, now: ColumnSchema): 'same' | 'wider' | 'other' {
  const [a, b] = [old.type, now.type];
  if (a.array !== b.array || a.delimiter !== b.delimiter || a.kind !== b.kind) return 'other';
  if (a.name !== b.name && !SAME_TEXT.some(group => group.includes(a.name) && group.includes(b.name)))
    return 'other';
  if (a.name !== 'numeric' || a.modifier === b.modifier) return 'same';
  const [from, to] = [precisionAndScale(a.modifier), precisionAndScale(b.modifier)];
  const decimal = (column: ColumnSchema): boolean => column.stored.column.includes('Decimal');
  if (!decimal(old) && !decimal(now)) return 'same';
  const wider = decimal(old) && decimal(now) && from?.scale === to?.scale && !a.array;
  return wider && (to?.precision ?? 0) >= (from?.precision ?? 0) ? 'wider' : 'other';
}
