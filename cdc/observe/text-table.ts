import {oneLine} from './one-line.ts';

/** Rows as aligned text: numbers to the right, columns that are empty throughout left out. */
export function textTable(rows: readonly Readonly<Record<string, unknown>>[]): string {
  const names = Object.keys(rows[0] ?? {}).filter(name => rows.some(row => cell(row[name]) !== ''));
  const widths = names.map(name => Math.max(name.length, ...rows.map(row => cell(row[name]).length)));
  const line = (cells: readonly string[], right: (i: number) => boolean): string =>
    cells
      .map((text, i) => (right(i) ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  const isNumber = (i: number): boolean => rows.every(row => /^(-?[\d.,]*|NULL)$/.test(cell(row[names[i]!])));
  return [
    line(names, isNumber),
    line(
      widths.map(width => '─'.repeat(width)),
      () => false,
    ),
    ...rows.map(row =>
      line(
        names.map(name => cell(row[name])),
        isNumber,
      ),
    ),
  ].join('\n');
}

const WIDEST = 60;
function cell(value: unknown): string {
  if (value === null || value === undefined) return '';
  const text = oneLine(typeof value === 'string' ? value : JSON.stringify(value));
  return text.length > WIDEST ? `${text.slice(0, WIDEST - 1)}…` : text;
}
