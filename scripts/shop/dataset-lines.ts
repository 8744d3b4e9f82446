import {createReadStream} from 'node:fs';
import {open} from 'node:fs/promises';
import {pipeline, Readable} from 'node:stream';
import {createGunzip} from 'node:zlib';
import {parse} from 'csv-parse/sync';
import {parseMills} from './money.ts';

/** The columns of the UCI data set *Online Retail*; any order will do. */
export const COLUMNS = [
  'InvoiceNo',
  'StockCode',
  'Description',
  'Quantity',
  'InvoiceDate',
  'UnitPrice',
  'CustomerID',
  'Country',
] as const;

/** One line of an invoice, as the file has it; `line` counts the file's lines from 1, the header being 1. */
export type InvoiceLine = {line: number; at: string; mills: bigint} & Record<
  (typeof COLUMNS)[number],
  string
>;
/** A line that could not be read: nothing of it is loaded. */
export type BadLine = {line: number; reason: string; text: string};

const LONGEST_LINE = 1024 * 1024;
const INT32 = 2_147_483_647;

/**
 * The file's invoice lines, plain or gzipped (told by its first bytes). A record is one line: a quote that is not
 * closed spoils its own line only, and every line is either yielded, blank, or given to `onBad`.
 */
export async function* invoiceLines(
  file: string,
  {onBad, onRead}: {onBad: (bad: BadLine) => void; onRead: (bytes: number) => void},
): AsyncGenerator<InvoiceLine> {
  let columns: number[] | null = null;
  let line = 0;
  for await (const text of textLines(await openFile(file, onRead))) {
    line++;
    if (text === '') continue;
    if (!columns) {
      columns = readHeader(file, text);
      continue;
    }
    const read = readLine(text, columns);
    if (typeof read === 'string') onBad({line, reason: read, text: text.slice(0, 200)});
    else yield {line, ...read};
  }
  if (!columns) throw new Error(`${file} is empty: the first line must be ${COLUMNS.join(',')}`);
}

/** For each of `COLUMNS` where it stands in the file, or an error that names what is missing and what is unknown. */
function readHeader(file: string, text: string): number[] {
  const found = splitLine(text) ?? [];
  const missing = COLUMNS.filter(column => !found.includes(column));
  const unknown = found.filter(name => !(COLUMNS as readonly string[]).includes(name));
  if (missing.length === 0 && found.length === COLUMNS.length)
    return COLUMNS.map(column => found.indexOf(column));
  const wrong = [
    missing.length > 0 && `missing ${missing.join(', ')}`,
    unknown.length > 0 && `unknown ${unknown.map(name => JSON.stringify(name.slice(0, 40))).join(', ')}`,
    missing.length + unknown.length === 0 && 'a column stands twice',
  ].filter(Boolean);
  throw new Error(
    `${file}: the header is not that of Online Retail (${wrong.join('; ')}); expected ${COLUMNS.join(',')}`,
  );
}

/** The line's values, or why it cannot be read. */
function readLine(text: string, columns: readonly number[]): Omit<InvoiceLine, 'line'> | string {
  if (text.includes('\uFFFD')) return 'not UTF-8';
  if (text.includes('\0')) return 'a zero byte, which PostgreSQL cannot hold';
  const cells = splitLine(text);
  if (!cells) return 'a quote in the wrong place, or not closed';
  if (cells.length !== COLUMNS.length) return `${cells.length} columns instead of ${COLUMNS.length}`;
  const entries = COLUMNS.map((column, index) => [column, cells[columns[index]!]!] as const);
  const row = Object.fromEntries(entries) as Record<(typeof COLUMNS)[number], string>;
  for (const column of ['InvoiceNo', 'StockCode', 'Country'] as const)
    if (row[column] === '') return `${column} is empty`;
  if (!/^-?\d{1,10}$/.test(row.Quantity) || Math.abs(Number(row.Quantity)) > INT32)
    return `Quantity is not a whole number: ${JSON.stringify(row.Quantity)}`;
  const mills = parseMills(row.UnitPrice);
  if (mills === null)
    return `UnitPrice is not a price with up to 3 decimals: ${JSON.stringify(row.UnitPrice)}`;
  const at = utcTime(row.InvoiceDate);
  if (!at) return `InvoiceDate is not YYYY-MM-DD HH:MM:SS: ${JSON.stringify(row.InvoiceDate)}`;
  return {...row, at, mills};
}

function splitLine(text: string): string[] | null {
  if (!text.includes('"')) return text.split(',');
  try {
    const rows: string[][] = parse(text, {relax_column_count: true});
    return rows.length === 1 ? rows[0]! : null;
  } catch {
    return null;
  }
}

function utcTime(text: string): string | null {
  if (!/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(text)) return null;
  const at = new Date(`${text.replace(' ', 'T')}Z`);
  // Through a Date and back, because 30 February would become 2 March.
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(text.replace(' ', 'T'))
    ? `${text}+00`
    : null;
}

async function openFile(file: string, onRead: (bytes: number) => void): Promise<AsyncIterable<Buffer>> {
  const handle = await open(file);
  const {buffer} = await handle.read(Buffer.alloc(2), 0, 2, 0).finally(() => handle.close());
  const counted = async function* (): AsyncGenerator<Buffer> {
    for await (const chunk of createReadStream(file)) {
      onRead(chunk.length);
      yield chunk;
    }
  };
  if (buffer[0] !== 0x1f || buffer[1] !== 0x8b) return counted();
  // `pipeline` and not `pipe`: an error of the file must end the iteration of the unzipped text, too.
  return pipeline(Readable.from(counted()), createGunzip(), () => {});
}

/** The text's lines without their ends (LF or CRLF only: a name may hold other separators) and byte order mark. */
async function* textLines(source: AsyncIterable<Buffer>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of source) {
    const lines = (rest + decoder.decode(chunk, {stream: true})).split('\n');
    rest = lines.pop()!;
    if (rest.length > LONGEST_LINE)
      throw new Error(`a line of more than ${LONGEST_LINE} characters: this is no CSV file`);
    for (const line of lines) yield line.endsWith('\r') ? line.slice(0, -1) : line;
  }
  rest += decoder.decode();
  if (rest) yield rest.endsWith('\r') ? rest.slice(0, -1) : rest;
}
