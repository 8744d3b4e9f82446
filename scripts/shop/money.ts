/** One currency in every data set and in the live traffic, so that sums over orders mean something. */
export const CURRENCY = 'GBP';

const EXACT = /^(-?)(\d{1,9})(?:\.(\d{1,3}))?$/;

/** Whole thousandths as numeric(12,3) text: 2550n is '2.550'. */
export function formatMills(mills: bigint | number): string {
  const text = String(mills);
  const digits = text.replace('-', '').padStart(4, '0');
  return `${text.startsWith('-') ? '-' : ''}${digits.slice(0, -3)}.${digits.slice(-3)}`;
}

/** Thousandths of a decimal text, or null where numeric(12,3) could not hold it exactly. */
export function parseMills(text: string): bigint | null {
  const match = EXACT.exec(text);
  if (!match) return null;
  const mills = BigInt(match[2]! + (match[3] ?? '').padEnd(3, '0'));
  return match[1] ? -mills : mills;
}
