import type pg from 'pg';
import {z} from 'zod';
import {type ClickHouseClient, chName, rows} from '../sink/clickhouse.ts';
import {pgName} from '../source/table-schema.ts';
import {type Column, sqlName, type Table} from './catalog.ts';

/**
 * Rows of both sides as texts that can be compared, by nothing that the product does: PostgreSQL's output and
 * ClickHouse's JSON, brought to one form here.
 */
type Text = string | null | readonly Text[];

const AS_TEXT = {getTypeParser: () => (text: string) => text} as unknown as pg.CustomTypesConfig;
const PgRow = z.array(z.string().nullable());
const ChRow = z.object({r: z.array(z.unknown())});

/** Rows of the table in PostgreSQL, each as JSON of its columns in their order. */
export async function rowsOfPostgres(client: pg.ClientBase, table: Table): Promise<string[]> {
  const list = table.columns.map(({name}) => pgName(name)).join(', ');
  await client.query(
    "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'iso_8601'; SET extra_float_digits = 3; SET bytea_output = 'hex'",
  );
  const found = await client.query({
    text: `SELECT ${list} FROM ${table.partitioned ? '' : 'ONLY '}${sqlName(table)}`,
    rowMode: 'array',
    types: AS_TEXT,
  });
  return found.rows.map(row =>
    JSON.stringify(PgRow.parse(row).map((text, i) => fromPostgres(text, table.columns[i]!))),
  );
}

/** Rows of the view of current rows in ClickHouse, the same way. */
export async function rowsOfClickHouse(
  client: ClickHouseClient,
  database: string,
  view: string,
  table: Table,
): Promise<string[]> {
  const list = table.columns.map(({name, base}) =>
    base.name === 'bytea' && !base.array ? `lower(hex(${chName(name)}))` : chName(name),
  );
  const found = await rows(
    client,
    ChRow,
    `SELECT tuple(${list.join(', ')}) AS r FROM ${chName(database, view)}
     SETTINGS output_format_json_quote_64bit_integers = 1, output_format_json_quote_decimals = 1,
       output_format_json_quote_denormals = 1, output_format_json_named_tuples_as_objects = 0,
       output_format_json_quote_64bit_floats = 1`,
  );
  return found.map(({r}) => JSON.stringify(r.map((value, i) => fromClickHouse(value, table.columns[i]!))));
}

function fromPostgres(text: string | null, {base}: Column): Text {
  if (text === null) return null;
  if (!base.array) return form(text, base);
  const elements = parseArray(text.replace(/^\[[\d:]+\]=/, ''));
  // An array of arrays has no place.
  return elements.some(element => Array.isArray(element))
    ? null
    : elements.map(element => (typeof element === 'string' ? form(element, base) : element));
}

function fromClickHouse(value: unknown, {base}: Column): Text {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value))
    return value.map(element => (element === null ? null : form(String(element), base)));
  // The sign of a zero would be lost.
  const text = Object.is(value, -0) ? '-0' : String(value);
  return form(base.name === 'bytea' ? `\\x${text}` : text, base);
}

/** One form of a value's text, whichever side it came from; null for what ClickHouse has no place for. */
function form(text: string, {name, modifier}: Column['base']): string | null {
  switch (name) {
    case 'bool':
      return text[0]!;
    case 'float4':
    case 'float8': {
      const number = Number(text.replace(/^(-?)inf$/i, '$1Infinity'));
      return Object.is(number, -0) ? '-0' : String(name === 'float4' ? Math.fround(number) : number);
    }
    case 'numeric':
      if (modifier < 0) return text;
      if (!/^-?[\d.]+$/.test(text)) return null;
      return text.includes('.') ? text.replace(/\.?0+$/, '').replace(/^-0?$/, '0') : text;
    case 'date':
    case 'timestamp':
    case 'timestamptz': {
      const [, year, rest = '', fraction = ''] = /^(\d{4})(-[^.+]*)(\.\d+)?(?:\+00)?$/.exec(text) ?? [];
      if (year === undefined || year < '1900' || year > '2299') return null;
      return year + rest + (name === 'date' ? '' : fraction.slice(1).padEnd(6, '0'));
    }
    default:
      return text;
  }
}

/** PostgreSQL's array literal with commas. */
function parseArray(text: string): Text[] {
  let at = 1;
  const list = (): Text[] => {
    const found: Text[] = [];
    for (; text[at] !== '}'; ) {
      if (text[at] === ',') at += 1;
      else if (text[at] === '{') {
        at += 1;
        found.push(list());
        at += 1;
      } else if (text[at] === '"') {
        const [all] = /^"(?:[^"\\]|\\.)*"/s.exec(text.slice(at))!;
        found.push(all.slice(1, -1).replaceAll(/\\(.)/gs, '$1'));
        at += all.length;
      } else {
        const [all] = /^[^,}]+/.exec(text.slice(at))!;
        found.push(all === 'NULL' ? null : all.replaceAll(/\\(.)/gs, '$1'));
        at += all.length;
      }
    }
    return found;
  };
  return list();
}
