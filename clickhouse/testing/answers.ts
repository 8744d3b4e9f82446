import {reference} from './reference.ts';

export type Row = Record<string, unknown>;

/** Two databases that are to say the same. */
export interface Both {
  /** Rows of ClickHouse: whole numbers of 64 bits and money as text, with all decimals. */
  shown(sql: string): Promise<Row[]>;
  /** Rows of PostgreSQL. */
  wanted(sql: string, values: unknown[]): Promise<Row[]>;
  /** Database of the views. */
  readonly analytics: string;
  readonly timeZone: string;
}

/** What the settings of a client must be for `shown`. */
export const AS_TEXT = {
  output_format_json_quote_64bit_integers: 1,
  output_format_json_quote_decimals: 1,
  output_format_decimal_trailing_zeros: 1,
} as const;

/** Both answers of one hour: the views look at the clock, and it may strike between the two. */
export async function answers(both: Both, view: string): Promise<{shown: Row[]; wanted: Row[]}> {
  const clock = async (): Promise<{now: string; hour: string}> => {
    const [found] = await both.shown(
      "SELECT toString(now64(6, 'UTC')) AS now, toString(toStartOfHour(now64(6, 'UTC'))) AS hour",
    );
    return {now: String(found?.now), hour: String(found?.hour)};
  };
  for (;;) {
    const before = await clock();
    const shown = await both.shown(`SELECT * FROM ${both.analytics}.${view}`);
    const sql = reference(both.timeZone)[view]!;
    const wanted = await both.wanted(sql, sql.includes('$1') ? [`${before.now}+00`] : []);
    if ((await clock()).hour === before.hour) return {shown, wanted};
  }
}
