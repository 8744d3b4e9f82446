/** What breaks a line, moves the cursor or turns the direction of text: within a name it could forge a line of ours. */
const BREAKING = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;
const SHORT: Readonly<Record<string, string>> = {'\n': '\\n', '\r': '\\r', '\t': '\\t'};
const hex = (char: string): string => char.codePointAt(0)!.toString(16).padStart(4, '0');

/** Text for people in which nothing is left that is not seen: a line break becomes `\n`, an ESC `\u001b`. */
export const oneLine = (text: string): string =>
  text.replace(BREAKING, char => SHORT[char] ?? `\\u${hex(char)}`);

/** The same for PostgreSQL's SQL, which still means what it did: `"a⏎b"` becomes `U&"a\000ab"`. */
export const oneLineSql = (sql: string): string =>
  oneLine(
    sql.replace(/"(?:[^"]|"")*"/g, name =>
      oneLine(name) === name
        ? name
        : `U&${name.replaceAll('\\', '\\\\').replace(BREAKING, char => `\\${hex(char)}`)}`,
    ),
  );
