import * as encode from './encode.ts';
import {isValue} from './framed.ts';

export interface WireForm {
  readonly type: string;
  readonly expr: (read: string) => string;
  readonly back: (stored: string) => string;
}

/** How ClickHouse reads a value from the text of `COPY`. */
export interface CopyForm {
  /** What `COPY` writes in place of the column. */
  readonly select?: (value: string) => string;
  /** The type ClickHouse reads where it is not the column's, and the way from there. */
  readonly type?: string;
  readonly expr?: (read: string) => string;
}

/** How one PostgreSQL type lives in ClickHouse. SQL functions take a quoted column name or an expression. */
export interface TypeMapping {
  /** The ClickHouse type, without NULL-ability. */
  readonly ch: string;
  readonly encode: encode.Encoder;
  /** Where the wire holds something else than the column: the type read, the way from it, and back to it. */
  readonly input?: WireForm;
  /** The same for elements of a nullable array, where it is not `input`. */
  readonly variantInput?: WireForm;
  /** Where ClickHouse itself reads the text of `COPY`, with the encoder's result: rows need not go by the encoder then. */
  readonly copy?: CopyForm;
  /** In PostgreSQL, true for a value that ClickHouse cannot hold: its row goes by the encoder, which says why. */
  readonly unfit?: (value: string) => string;
  /** The value's text in PostgreSQL and in ClickHouse for `verify`; NULL where ClickHouse cannot hold the value. */
  readonly pgText?: (value: string) => string;
  readonly chText?: (value: string) => string;
  /** Literals that the round-trip test sends, as `'…'::type` needs them. */
  readonly samples: readonly string[];
}

/** PostgreSQL's output function, padding of char(n) included (a cast to text would strip it); `concat(NULL)` is ''. */
export const output = (value: string): string => `CASE WHEN ${isValue(value)} THEN concat(${value}) END`;

/** A type whose text is its value. */
export const text = (...samples: string[]): TypeMapping => ({
  ch: 'String',
  encode: encode.string,
  copy: {},
  samples,
});
