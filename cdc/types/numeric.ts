import * as encode from './encode.ts';
import {output, type TypeMapping, text} from './mapping.ts';

interface Decimal {
  readonly precision: number;
  readonly scale: number;
}

/** numeric's modifier packs precision and an 11-bit signed scale (PostgreSQL 15+), 4 added. -1 is none. */
export function precisionAndScale(modifier: number): Decimal | undefined {
  if (modifier < 4) return undefined;
  const packed = modifier - 4;
  return {precision: (packed >> 16) & 0xffff, scale: ((packed & 0x7ff) ^ 1024) - 1024};
}

const DECIMAL_DIGITS = 76;

/**
 * The Decimal that holds a numeric(p, s). With a negative scale zeros stand before the point in place of digits, with
 * a scale above the precision they stand behind it: both count as digits of a Decimal.
 */
function decimalOf(modifier: number): Decimal | undefined {
  const declared = precisionAndScale(modifier);
  if (!declared) return undefined;
  const scale = Math.max(declared.scale, 0);
  const precision = Math.max(declared.precision - Math.min(declared.scale, 0), scale);
  return precision <= DECIMAL_DIGITS ? {precision, scale} : undefined;
}

/** Of any size: PostgreSQL's text, exact, and NaN and the infinities are text too. */
const ANY = text();

/** A numeric(p, s) may be NaN, and no infinity (PostgreSQL 18.4: "numeric field overflow"); NaN is above all numbers. */
const notFinite = (value: string): string => `(${value} >= 'NaN')`;

/** numeric has two mappings: Decimal where precision and scale fit one, otherwise text. */
export function numericMapping(modifier: number): TypeMapping {
  const decimal = decimalOf(modifier);
  if (!decimal) return ANY;
  const {precision, scale} = decimal;
  return {
    ch: `Decimal(${precision}, ${scale})`,
    encode: encode.decimal,
    copy: {},
    unfit: notFinite,
    // No Decimal within a Variant is read from JSON (ClickHouse 26.7: "Cannot parse JSON value of type Variant").
    variantInput: {
      type: 'String',
      expr: read => `CAST(${read}, 'Nullable(Decimal(${precision}, ${scale}))')`,
      back: stored => `toDecimalString(${stored}, ${scale})`,
    },
    pgText: value => `CASE WHEN NOT ${notFinite(value)} THEN ${output(value)} END`,
    chText: value => `toDecimalString(${value}, ${scale})`,
    samples: [],
  };
}
