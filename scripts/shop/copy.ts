import {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import type {Client} from 'pg';
import {from} from 'pg-copy-streams';

/** A value as COPY's text format sends it; null is NULL. */
export type Cell = string | number | null;

const CHUNK_CHARS = 64 * 1024;

/** Sends `rows` to `target`, such as `public.orders (id, status)`, as one COPY that runs no faster than the server. */
export async function copyRows(
  client: Client,
  target: string,
  rows: Iterable<readonly Cell[]> | AsyncIterable<readonly Cell[]>,
): Promise<void> {
  await pipeline(Readable.from(chunks(rows)), client.query(from(`COPY ${target} FROM STDIN`)));
}

async function* chunks(rows: Iterable<readonly Cell[]> | AsyncIterable<readonly Cell[]>) {
  let text = '';
  for await (const row of rows) {
    text += `${row.map(encode).join('\t')}\n`;
    if (text.length < CHUNK_CHARS) continue;
    yield Buffer.from(text);
    text = '';
  }
  if (text) yield Buffer.from(text);
}

const ESCAPES: Readonly<Record<string, string>> = {'\\': '\\\\', '\t': '\\t', '\n': '\\n', '\r': '\\r'};

function encode(cell: Cell): string {
  if (cell === null) return '\\N';
  return typeof cell === 'number' ? String(cell) : cell.replace(/[\\\t\n\r]/g, char => ESCAPES[char]!);
}
