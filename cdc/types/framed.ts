/** NOT NULL in PostgreSQL, for any type: a composite of NULLs is a value, though `IS NULL` holds for it. */
export const isValue = (value: string): string => `${value} IS DISTINCT FROM NULL`;

/** The part of a text that cannot be mistaken for another value: its length in bytes, then itself; `n` for NULL. */
export const framed = {
  pg: (text: string): string => `coalesce(octet_length(${text}) || ':' || ${text}, 'n')`,
  ch: (text: string): string => `ifNull(concat(toString(length(${text})), ':', ${text}), 'n')`,
};
