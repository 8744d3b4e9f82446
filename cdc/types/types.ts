import {PipelineError} from '../failures.ts';
import {arrayColumn} from './array.ts';
import {BUILT_IN_TYPES} from './built-in.ts';
import * as encode from './encode.ts';
import {EXTENSION_TYPES} from './extensions.ts';
import {type CopyForm, output, type TypeMapping, text, type WireForm} from './mapping.ts';
import {numericMapping, precisionAndScale} from './numeric.ts';
import {REFUSED} from './refused.ts';

/** Every supported base type. One without a row is refused; it does not become a String by default. */
export const TYPES: Readonly<Record<string, TypeMapping>> = Object.fromEntries(
  [BUILT_IN_TYPES, ...Object.values(EXTENSION_TYPES)].flatMap(types => Object.entries(types)),
);

const ENUM: TypeMapping = {...text(), ch: 'LowCardinality(String)', chText: value => `toString(${value})`};
/** Kinds of type (`pg_type.typtype`) whose text is their value. */
const BY_KIND: Readonly<Record<string, TypeMapping>> = {e: ENUM, c: text(), r: text(), m: text()};

/** A column's type as the catalog has it, domains resolved to what is below them. */
export interface PgType {
  /** `pg_type.typname` of the base type (of the element, for an array). */
  readonly name: string;
  /** `pg_type.typtype` of it: b base, c composite, e enum, r range, m multirange. */
  readonly kind: string;
  readonly modifier: number;
  readonly array: boolean;
  readonly delimiter: string;
}

/** The type as PostgreSQL's users write it, as far as it decides what is stored: `numeric(12,3)`, `text[]`. */
export function typeText({name, modifier, array}: PgType): string {
  const declared = name === 'numeric' ? precisionAndScale(modifier) : undefined;
  const size = declared ? `(${declared.precision},${declared.scale})` : '';
  return `${name}${size}${array ? '[]' : ''}`;
}

/** How a column is stored, read, written and compared. */
export interface ColumnType {
  readonly column: string;
  readonly encode: encode.Encoder;
  /** Undefined where ClickHouse reads the wire's value straight into the column. */
  readonly input: WireForm | undefined;
  /** Undefined where its values go by the encoder. */
  readonly copy: Required<CopyForm> | undefined;
  /** Undefined where ClickHouse holds every value, or the encoder has to look. */
  readonly unfit: ((value: string) => string) | undefined;
  readonly pgText: (value: string) => string;
  readonly chText: (value: string) => string;
}

function scalar({name, kind, modifier}: PgType): TypeMapping | undefined {
  // Only a base type is known by its name: anybody may make an enum that is called "date".
  if (kind !== 'b') return BY_KIND[kind];
  if (name === 'numeric') return numericMapping(modifier);
  return Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
}

/**
 * The mapping of a column. Throws `type.unsupported` for a type without a row.
 */
export function columnType(type: PgType, notNull: boolean): ColumnType {
  const mapping = scalar(type);
  if (!mapping) {
    const reason = Object.hasOwn(REFUSED, type.name) ? `: ${REFUSED[type.name]}` : '';
    throw new PipelineError('type.unsupported', `no mapping for type ${type.name}${reason}`);
  }
  const base = mapping.ch;
  const pgText = mapping.pgText ?? output;
  const chText = mapping.chText ?? (value => value);
  if (!type.array) {
    // Text is read as Nullable: `\N` for a NULL that should not be there would be read as '' otherwise.
    const read = mapping.copy?.type ?? base;
    const type = !notNull || /String/.test(read) ? nullable(read) : read;
    return {
      column: notNull ? base : nullable(base),
      copy: mapping.copy && {select: value => value, expr: value => value, ...mapping.copy, type},
      unfit: mapping.unfit,
      encode: mapping.encode,
      input: inputOf(mapping, notNull),
      pgText,
      chText,
    };
  }
  const element = base.replace(/^LowCardinality\((.*)\)$/, '$1');
  return {
    ...arrayColumn(
      {ch: element, pgText, chText, input: mapping.input, variantInput: mapping.variantInput},
      notNull,
    ),
    encode: encode.array(mapping.encode, type.delimiter),
    copy: undefined,
    unfit: undefined,
  };
}

const nullable = (type: string): string =>
  type.startsWith('LowCardinality(')
    ? `LowCardinality(Nullable(${type.slice('LowCardinality('.length, -1)}))`
    : `Nullable(${type})`;

function inputOf(mapping: TypeMapping, notNull: boolean): WireForm | undefined {
  if (!mapping.input || notNull) return mapping.input;
  return {...mapping.input, type: `Nullable(${mapping.input.type})`};
}
