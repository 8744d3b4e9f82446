import {framed, isValue} from './framed.ts';
import type {WireForm} from './mapping.ts';
import type {ColumnType} from './types.ts';

/** What an array column takes from the mapping of its elements. */
interface Element {
  readonly ch: string;
  readonly input: WireForm | undefined;
  /** In place of `input` within a Variant. */
  readonly variantInput: WireForm | undefined;
  readonly pgText: (value: string) => string;
  readonly chText: (value: string) => string;
}

/**
 * An array of one dimension. A nullable one is `Variant(Array(…))`: ClickHouse has no Nullable(Array), and NULL is
 * not an empty array.
 */
export function arrayColumn(
  element: Element,
  notNull: boolean,
): Pick<ColumnType, 'column' | 'input' | 'pgText' | 'chText'> {
  const stored = `Array(Nullable(${element.ch}))`;
  const wire = notNull ? element.input : (element.variantInput ?? element.input);
  return {
    column: notNull ? stored : `Variant(${stored})`,
    input: wire && wireForm(wire, notNull, stored),
    pgText: value => pgText(value, element.pgText('e')),
    chText: value => {
      const parts = map(e => framed.ch(element.chText(e)), notNull ? value : ofVariant(value, stored));
      return notNull ? joined(parts) : `if(isNull(${value}), NULL, ${joined(parts)})`;
    },
  };
}

/**
 * Its elements, framed; NULL, as the encoder has it, where one element or a second dimension finds no place. `unnest`
 * stands in the SELECT list: in FROM it would take a composite apart.
 */
const pgText = (value: string, element: string): string =>
  `CASE WHEN ${isValue(value)} AND coalesce(array_ndims(${value}), 1) = 1 THEN
    (SELECT CASE WHEN bool_or(${isValue('e')} AND ${element} IS NULL) THEN NULL
      ELSE coalesce(string_agg(${framed.pg(element)}, ',' ORDER BY o), '') END
    FROM (SELECT unnest(${value}) AS e, generate_subscripts(${value}, 1) AS o) AS u) END`;

const joined = (parts: string): string => `arrayStringConcat(${parts}, ',')`;
const map = (to: (value: string) => string, value: string): string => `arrayMap(e -> ${to('e')}, ${value})`;
/** A type's name holds quotes where it has a time zone. */
const literal = (type: string): string => `'${type.replaceAll("'", "\\'")}'`;
const ofVariant = (value: string, type: string): string => `variantElement(${value}, ${literal(type)})`;

function wireForm(element: WireForm, notNull: boolean, stored: string): WireForm {
  const wire = `Array(Nullable(${element.type}))`;
  if (notNull)
    return {type: wire, expr: read => map(element.expr, read), back: value => map(element.back, value)};
  const through = (to: (value: string) => string, from: string, into: string) => (value: string) =>
    `if(isNull(${value}), NULL, CAST(${map(to, ofVariant(value, from))}, ${literal(`Variant(${into})`)}))`;
  return {
    type: `Variant(${wire})`,
    expr: through(element.expr, wire, stored),
    back: through(element.back, stored, wire),
  };
}
