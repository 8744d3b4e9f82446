import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, lasting, tableChooser} from './catalog.ts';
import {compareTables, type SchemaChange} from './schema-change.ts';
import type {SchemaMessage} from './schema-messages.ts';
import {textOf} from './table-problems.ts';
import {type ColumnSchema, tableName, tableSchema} from './table-schema.ts';
import {type CapturedTable, capturedTable, placeProblems, planTable} from './tables.ts';

/** What is to be done about a table, at its place among the rows. */
export type SchemaAction = {readonly version: bigint; readonly name: string} & (
  | {
      readonly kind: 'in place';
      readonly table: CapturedTable;
      readonly change: SchemaChange & {readonly kind: 'in place'};
    }
  /** Nothing for the target, but the catalog's description is another one from here on. */
  | {readonly kind: 'note'; readonly table: CapturedTable}
  | {
      readonly kind: 'read';
      readonly table: CapturedTable;
      readonly text: string;
      readonly touched: readonly ColumnSchema[];
      /** How it was captured until here. */
      readonly before: CapturedTable | undefined;
    }
  /** Its rows are passed over from here on; once it can be captured again it is read again. */
  | {
      readonly kind: 'park';
      readonly text: string;
      readonly source: {readonly schema: string; readonly table: string};
      /** How it was captured until here. */
      readonly table: CapturedTable | undefined;
    }
  /** It is not there any more under this name; `table` is how it was captured, where it ever was. */
  | {readonly kind: 'gone'; readonly text: string; readonly table: CapturedTable | undefined}
  /** A new table that only has to be put into the publication. */
  | {readonly kind: 'publish'; readonly source: CatalogTable}
);

/** How a table was captured from a version on. */
export interface HistoryEntry {
  readonly since: bigint;
  readonly table: CapturedTable;
}

export interface TrackedTable {
  /** Oldest first; the last one is how it is captured now. */
  readonly history: HistoryEntry[];
  parked: boolean;
}

export interface Place {
  readonly version: bigint;
  /** Roots and tables that this transaction has rewritten so far. */
  readonly rewritten: ReadonlySet<number>;
}

/**
 * What held at this version; undefined where that was before the table was read for the generation that it has now:
 * a replay from before that reading, rows and messages alike, has nothing that the reading did not see.
 */
function entryAt({history}: TrackedTable, version: bigint): HistoryEntry | undefined {
  const generation = (entry: HistoryEntry): number => entry.table.schema.definition.generation;
  const entry = history.findLast(({since}) => since <= version);
  return entry && generation(entry) === generation(history.at(-1)!) ? entry : undefined;
}

/**
 * Knows for every place of the stream how each table is captured there. It decides by what the messages say and by
 * what it was given at the start, so that a replay decides the same.
 */
export class TableTracker {
  readonly #settings: Settings;
  readonly #serverVersion: number;
  readonly #tables: Map<number, TrackedTable>;
  readonly #generations: Map<string, number>;
  readonly #chosen: ReturnType<typeof tableChooser>;
  /** OID → name of tables that were told of, and are not captured yet. */
  readonly #announced = new Map<number, string>();
  /**
   * Tables of which something was taken that the catalog watch has not told itself: it is to look at them once more, as
   * a lock on a table does not keep its types, its schema or the publication from being altered meanwhile.
   */
  readonly unconfirmed = new Set<number>();

  /** @param generations the highest one that each name has had. */
  constructor(options: {
    settings: Settings;
    serverVersion: number;
    tables: ReadonlyMap<number, TrackedTable>;
    generations: ReadonlyMap<string, number>;
  }) {
    this.#settings = options.settings;
    this.#serverVersion = options.serverVersion;
    this.#tables = new Map(options.tables);
    this.#generations = new Map(options.generations);
    this.#chosen = tableChooser(options.settings);
  }

  get tables(): readonly CapturedTable[] {
    return [...this.#tables.values()].flatMap(({history, parked}) => (parked ? [] : [history.at(-1)!.table]));
  }

  /** How the table is captured now; undefined where it is not. */
  newest(oid: number): CapturedTable | undefined {
    const tracked = this.#tables.get(oid);
    return tracked && !tracked.parked ? tracked.history.at(-1)!.table : undefined;
  }

  /** How a row of this version is to be read: undefined where it is passed over. */
  at(oid: number, version: bigint): HistoryEntry | undefined {
    const tracked = this.#tables.get(oid);
    return tracked && !tracked.parked ? entryAt(tracked, version) : undefined;
  }

  /** Its changes are passed over from now on, until it is described anew. */
  park(oid: number): void {
    const tracked = this.#tables.get(oid);
    if (tracked) tracked.parked = true;
  }

  /** Takes a message at its place; gives what is to be done before the rows behind it. */
  take(message: SchemaMessage, place: Place): SchemaAction[] {
    const actions: SchemaAction[] = [];
    const told = (oid: number, found: readonly SchemaAction[]): void => {
      if (found.length > 0 && message.late !== true) this.unconfirmed.add(oid);
      actions.push(...found);
    };
    const described = message.tables ?? [];
    const seen = new Set(described.map(({oid}) => oid));
    const locked = new Set(message.late || message.resync ? seen : []);
    // Triggers of earlier releases do not say it: what they name is what the command holds.
    for (const oid of message.locked ?? message.named ?? []) locked.add(oid);
    // First: another table may have the name by now.
    for (const oid of message.named ?? []) {
      if (!seen.has(oid) && locked.has(oid))
        told(oid, this.#gone(oid, 'it was dropped at the source', place));
    }
    for (const table of described) if (locked.has(table.oid)) told(table.oid, this.#left(table, place));
    for (const table of described) {
      const found = locked.has(table.oid)
        ? this.#described(table, message, place)
        : this.#glimpsed(table, message, place);
      told(table.oid, found);
    }
    if (message.published) {
      const published = new Set(message.published);
      for (const [oid, {parked}] of this.#tables)
        if (!parked && !published.has(oid) && !seen.has(oid) && locked.has(oid))
          told(oid, this.#unpublished(oid, place));
    }
    return actions;
  }

  /**
   * Others may have altered the table between its description and this place, so that nothing is taken of it but what
   * values of its types are called, and may be called otherwise again before the catalog watch looks.
   */
  #glimpsed({oid, labels, attributes}: CatalogTable, message: SchemaMessage, place: Place): SchemaAction[] {
    const before = this.at(oid, place.version)?.table.source;
    if (!before) return [];
    const source = {
      ...before,
      labels: {...before.labels, ...labels},
      attributes: {...before.attributes, ...attributes},
    };
    return this.#described(source, message, place);
  }

  /** How the table was captured until here; undefined where the message is no news of it. */
  #before({oid}: CatalogTable, place: Place): CapturedTable | undefined {
    const tracked = this.#tables.get(oid);
    const entry = tracked && entryAt(tracked, place.version);
    return entry?.since === place.version ? undefined : entry?.table;
  }

  /** Names that the table, or its new partitions, do not have any more. */
  #left(source: CatalogTable, place: Place): SchemaAction[] {
    const name = tableName(source.schema, source.table);
    const before = this.#before(source, place);
    return [
      ...source.leaves.flatMap(({oid}) => this.#gone(oid, `it is a partition of ${name} now`, place)),
      ...(before && before.schema.name !== name
        ? this.#gone(source.oid, `it was renamed to ${name}`, place)
        : []),
    ];
  }

  #described(source: CatalogTable, message: SchemaMessage, place: Place): SchemaAction[] {
    const name = tableName(source.schema, source.table);
    const tracked = this.#tables.get(source.oid);
    if (!tracked) return this.#considered(source, place, undefined);
    const before = this.#before(source, place);
    if (!before) return [];
    if (source.published === null) return tracked.parked ? [] : this.#unpublished(source.oid, place);
    const plan = planTable(source, this.#settings, this.#serverVersion);
    if (!plan.schema) {
      return tracked.parked ? [] : this.#park(source.oid, textOf(plan.problems), place);
    }
    if (tracked.parked || message.resync === true) return this.#considered(source, place, before);
    const after = capturedTable(plan.schema, source);
    // Without the triggers a rewrite shows by its file alone, as VACUUM FULL and TRUNCATE do.
    const moved =
      message.late === true && message.watched !== true && before.source.fileNode !== source.fileNode;
    const change = compareTables(before, after, {
      rewritten: place.rewritten.has(source.oid) || moved,
      late: message.late === true,
    });
    switch (change.kind) {
      case 'none': {
        if (lasting(before.source) === lasting(source)) return [];
        const table = capturedTable(before.schema, source);
        tracked.history.push({since: place.version, table});
        return [{kind: 'note', version: place.version, name, table}];
      }
      case 'in place': {
        const table = capturedTable(change.next, source);
        tracked.history.push({since: place.version, table});
        return [{kind: 'in place', version: place.version, name, table, change}];
      }
      case 'read again':
        return this.#read(after, {text: change.text, touched: change.touched, before}, place);
    }
  }

  /** A table that is not captured, and perhaps can be now. */
  #considered(source: CatalogTable, place: Place, before: CapturedTable | undefined): SchemaAction[] {
    const name = tableName(source.schema, source.table);
    if (!this.#chosen(source) || this.#isTakenLater(name, place)) return [];
    const base = {version: place.version, name};
    const plan = planTable(source, this.#settings, this.#serverVersion, true);
    this.#announced.set(source.oid, name);
    if (plan.schema && source.published === null) return [{...base, kind: 'publish', source}];
    const problems = [
      ...plan.problems,
      ...(plan.schema
        ? placeProblems([...this.tables.map(({schema}) => schema), plan.schema], this.#settings)
        : []),
    ].filter(problem => problem.table === undefined || problem.table === name);
    if (!plan.schema || problems.length > 0) {
      return [{...base, kind: 'park', text: textOf(problems), source, table: undefined}];
    }
    const text = before ? 'it was asked for, or can be captured again' : 'it is new';
    return this.#read(capturedTable(plan.schema, source), {text, touched: [], before}, place);
  }

  /** Was the name another table's by the time that one was read? Then a replay tells of one that has lost it, and its target. */
  #isTakenLater(name: string, {version}: Place): boolean {
    return [...this.#tables.values()].some(
      tracked => tracked.history.at(-1)!.table.schema.name === name && !entryAt(tracked, version),
    );
  }

  #read(
    {schema, source}: CapturedTable,
    {
      text,
      touched,
      before,
    }: {text: string; touched: readonly ColumnSchema[]; before: CapturedTable | undefined},
    place: Place,
  ): SchemaAction[] {
    const generation = (this.#generations.get(schema.name) ?? 0) + 1;
    this.#generations.set(schema.name, generation);
    const columns = schema.definition.columns.map(column => ({...column, target: column.name}));
    const table = capturedTable(
      tableSchema({...schema.definition, columns, generation, dropped: []}),
      source,
    );
    const tracked = this.#tables.get(source.oid) ?? {history: [], parked: false};
    tracked.parked = false;
    this.#announced.delete(source.oid);
    tracked.history.push({since: place.version, table});
    this.#tables.set(source.oid, tracked);
    return [{kind: 'read', version: place.version, name: schema.name, table, text, touched, before}];
  }

  #park(oid: number, text: string, place: Place): SchemaAction[] {
    const tracked = this.#tables.get(oid);
    if (!tracked || tracked.parked) return [];
    const {since, table} = tracked.history.at(-1)!;
    if (since >= place.version) return []; // told again: what came of it, and after it, is known
    tracked.parked = true;
    const {source, schema} = table;
    return [{kind: 'park', version: place.version, name: schema.name, text, source, table}];
  }

  #unpublished(oid: number, place: Place): SchemaAction[] {
    const tracked = this.#tables.get(oid);
    if (!tracked || !entryAt(tracked, place.version)) return [];
    return this.#park(
      oid,
      `it was taken out of publication ${this.#settings.FRESHET_PUBLICATION}; once it is put back it is read again`,
      place,
    );
  }

  #gone(oid: number, text: string, place: Place): SchemaAction[] {
    const tracked = this.#tables.get(oid);
    if (tracked && !entryAt(tracked, place.version)) return [];
    const table = tracked?.history.at(-1)?.table;
    const name = table?.schema.name ?? this.#announced.get(oid);
    this.#tables.delete(oid);
    this.#announced.delete(oid);
    return name === undefined ? [] : [{kind: 'gone', version: place.version, name, text, table}];
  }
}
