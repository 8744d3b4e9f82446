import {PipelineError} from '../failures.ts';
import {type Bytes, writeString} from './bytes.ts';

/**
 * Writes PostgreSQL's text of a value (`source[start, end)`) as JSON. Returns why ClickHouse cannot hold the value,
 * or undefined where it can; the JSON is then PostgreSQL's own text, so that the topic keeps what the source has.
 */
export type Encoder = (out: Bytes, source: Buffer, start: number, end: number) => string | undefined;

const NULL = Buffer.from('null');
const TRUE = Buffer.from('true');
const FALSE = Buffer.from('false');
const QUOTE = 0x22;
const MINUS = 0x2d;
const isDigit = (byte: number | undefined): boolean => byte !== undefined && byte >= 0x30 && byte <= 0x39;

/** Integers: their text is JSON already, whatever their size. */
export const number: Encoder = (out, source, start, end) => {
  out.slice(source, start, end);
  return undefined;
};

/** Finite floats are JSON; NaN and the infinities become strings, which ClickHouse reads. */
export const float: Encoder = (out, source, start, end) => {
  const first = source[start] === MINUS ? source[start + 1] : source[start];
  if (isDigit(first)) out.slice(source, start, end);
  else writeString(out, source, start, end);
  return undefined;
};

export const string: Encoder = (out, source, start, end) => {
  writeString(out, source, start, end);
  return undefined;
};

export const bool: Encoder = (out, source, start) => {
  out.bytes(source[start] === 0x74 ? TRUE : FALSE);
  return undefined;
};

/** numeric(p,s) as a JSON string, so that no reader rounds it. */
export const decimal: Encoder = (out, source, start, end) => {
  writeString(out, source, start, end);
  const first = source[start] === MINUS ? source[start + 1] : source[start];
  return isDigit(first) ? undefined : 'Decimal has no NaN and no infinity';
};

const digits = (source: Buffer, at: number, count: number): number => {
  let value = 0;
  for (let i = at; i < at + count; i++) value = value * 10 + (source[i]! - 0x30);
  return value;
};

/** Days from 1970-01-01 to a day of the proleptic Gregorian calendar, which both servers use. */
function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

/** Date32 and DateTime64(6) hold these years; PostgreSQL writes others with more digits, as BC, or as infinity. */
const FIRST_YEAR = 1900;
const LAST_YEAR = 2299;
const OUT_OF_RANGE = `ClickHouse holds the years ${FIRST_YEAR} to ${LAST_YEAR}`;

/** Does `YYYY-` stand at `start` with a year ClickHouse holds, and no ` BC` at the end? */
function yearFits(source: Buffer, start: number, end: number): boolean {
  if (end - start < 10 || !isDigit(source[start]) || source[start + 4] !== MINUS || source[end - 1] === 0x43)
    return false;
  const year = digits(source, start, 4);
  return year >= FIRST_YEAR && year <= LAST_YEAR;
}

const dayNumber = (source: Buffer, start: number): number =>
  daysFromCivil(digits(source, start, 4), digits(source, start + 5, 2), digits(source, start + 8, 2));

/** date → days since 1970-01-01, as Debezium's `io.debezium.time.Date`. */
export const date: Encoder = (out, source, start, end) => {
  if (!yearFits(source, start, end)) {
    writeString(out, source, start, end);
    return OUT_OF_RANGE;
  }
  out.ascii(String(dayNumber(source, start)));
  return undefined;
};

/** timestamp → µs since 1970-01-01, as Debezium's `MicroTimestamp`; ClickHouse reads a bare integer as ticks. */
export const timestamp: Encoder = (out, source, start, end) => {
  if (!yearFits(source, start, end)) {
    writeString(out, source, start, end);
    return OUT_OF_RANGE;
  }
  const seconds =
    dayNumber(source, start) * 86_400 +
    digits(source, start + 11, 2) * 3600 +
    digits(source, start + 14, 2) * 60 +
    digits(source, start + 17, 2);
  const fraction = Math.max(0, end - start - 20);
  const micros = digits(source, start + 20, fraction) * 10 ** (6 - fraction);
  // A year of four digits keeps |µs| below 1.05e16: past 2^53, so seconds and micros are joined as text.
  if (seconds >= 0) {
    out.ascii(seconds === 0 ? String(micros) : `${seconds}${String(micros).padStart(6, '0')}`);
  } else {
    const whole = micros === 0 ? -seconds : -seconds - 1;
    const rest = micros === 0 ? 0 : 1_000_000 - micros;
    out.ascii(`-${whole === 0 ? rest : `${whole}${String(rest).padStart(6, '0')}`}`);
  }
  return undefined;
};

/** timestamptz in a UTC session (`2020-01-31 06:30:00.5+00`) → ISO 8601 with Z, as Debezium's `ZonedTimestamp`. */
export const timestamptz: Encoder = (out, source, start, end) => {
  if (!yearFits(source, start, end) || source[end - 3] !== 0x2b) {
    writeString(out, source, start, end);
    return OUT_OF_RANGE;
  }
  out.byte(QUOTE);
  const at = out.length;
  out.slice(source, start, end - 3);
  out.buffer[at + 10] = 0x54; // T
  out.byte(0x5a); // Z
  out.byte(QUOTE);
  return undefined;
};

/** bytea in hex (`\x3031`) → base64, as Debezium's default `binary.handling.mode`. */
export const bytea: Encoder = (out, source, start, end) => {
  out.byte(QUOTE);
  out.ascii(Buffer.from(source.toString('latin1', start + 2, end), 'hex').toString('base64'));
  out.byte(QUOTE);
  return undefined;
};

const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

/**
 * An array of one dimension → a JSON array. Bounds (`[0:1]={1,2}`) are dropped, elements kept. More dimensions are
 * not flattened: they are unrepresentable.
 *
 * @param delimiter `pg_type.typdelim`: ',' for all built-in types but box, which has ';'.
 */
export const array =
  (element: Encoder, delimiter: string): Encoder =>
  (out, source, start, end) => {
    const separator = delimiter.charCodeAt(0);
    const open = source.indexOf(OPEN, start);
    if (open < 0 || open >= end) throw new PipelineError('pg.protocol', 'an array without a brace');
    const begin = out.length;
    let reason: string | undefined;
    let at = open + 1;
    let item = Buffer.allocUnsafe(64);
    out.byte(0x5b);
    while (source[at] !== CLOSE) {
      if (at >= end) throw new PipelineError('pg.protocol', 'an array without an end');
      if (source[at] === OPEN) {
        out.length = begin;
        writeString(out, source, start, end);
        return 'an array of more than one dimension has no place in an Array column';
      }
      if (out.buffer[out.length - 1] !== 0x5b || at > open + 1) out.byte(0x2c);
      const quoted = source[at] === QUOTE;
      if (quoted) at++;
      let length = 0;
      for (; at < end; at++) {
        let byte = source[at]!;
        if (quoted ? byte === QUOTE : byte === separator || byte === CLOSE) break;
        if (byte === BACKSLASH) byte = source[++at]!;
        if (length === item.length) item = Buffer.concat([item, Buffer.allocUnsafe(item.length)]);
        item[length++] = byte;
      }
      if (quoted) at++;
      if (!quoted && length === 4 && item.toString('latin1', 0, 4).toUpperCase() === 'NULL') out.bytes(NULL);
      else reason = element(out, item, 0, length) ?? reason;
      if (source[at] === separator) at++;
    }
    out.byte(0x5d);
    if (reason !== undefined) {
      out.length = begin;
      writeString(out, source, start, end);
    }
    return reason;
  };
