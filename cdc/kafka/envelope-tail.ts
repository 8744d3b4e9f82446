import type {Lsn} from '../source/lsn.ts';
import type {Bytes} from '../types/bytes.ts';
import type {Transaction} from './transaction.ts';

const NO_NUMBER = BigInt(Number.MAX_SAFE_INTEGER);

/** Numbers of as many digits. */
class Digits {
  readonly count: number;
  readonly #least: number;
  readonly #most: number;
  constructor(value: number) {
    this.count = String(value).length;
    this.#least = value === 0 ? 0 : 10 ** (this.count - 1);
    this.#most = 10 ** this.count - 1;
  }
  has(value: number): boolean {
    return value >= this.#least && value <= this.#most;
  }
}

/** A tail of which only digits are written anew. */
interface Template {
  readonly bytes: Buffer;
  readonly lsn: Digits;
  readonly ordinal: Digits;
}

/**
 * What stands behind the rows in a table's envelopes. Of the changes of one transaction it is the same but for a few
 * digits: as text it took as long as the row itself.
 */
export class EnvelopeTail {
  /** Before the time of commit, and behind it. */
  readonly #head: Buffer;
  readonly #table: Buffer;
  /** Of the last one that was written as text. */
  #transaction: Transaction | undefined;
  #op = '';
  #now = 0;
  /** Where its first LSN stands, the second, and the ordinal. */
  #first = 0;
  #second = 0;
  #third = 0;
  #template: Template | undefined;

  constructor(head: string, table: string) {
    this.#head = Buffer.from(head);
    this.#table = Buffer.from(table);
  }

  write(
    out: Bytes,
    {op, ordinal, lsn}: {op: string; ordinal: number; lsn: Lsn},
    transaction: Transaction,
  ): void {
    const now = Date.now();
    const start = out.length;
    const isLike = this.#transaction === transaction && this.#op === op && this.#now === now;
    const position = isLike && lsn < NO_NUMBER ? Number(lsn) : -1; // exact: larger ones are written as text
    const template = this.#template;
    if (isLike && template?.lsn.has(position) && template.ordinal.has(ordinal)) {
      out.bytes(template.bytes);
      const first = start + this.#first;
      out.digitsAt(first, template.lsn.count, position);
      out.buffer.copyWithin(start + this.#second, first, first + template.lsn.count);
      out.digitsAt(start + this.#third, template.ordinal.count, ordinal);
      return;
    }
    const [before, between, behindLsn, behindOrdinal] = transaction.source;
    const text = lsn.toString();
    out.bytes(this.#head);
    out.ascii(transaction.time);
    out.bytes(this.#table);
    this.#first = out.length - start + before.length;
    this.#second = this.#first + text.length + between.length;
    this.#third = this.#second + text.length + behindLsn.length;
    out.ascii(
      `${before}${text}${between}${text}${behindLsn}${ordinal}${behindOrdinal}"op":"${op}","ts_ms":${now},"transaction":null}`,
    );
    this.#transaction = transaction;
    this.#op = op;
    this.#now = now;
    // Behind a second one there are perhaps more.
    this.#template =
      position >= 0
        ? {bytes: Buffer.from(out.view(start)), lsn: new Digits(position), ordinal: new Digits(ordinal)}
        : undefined;
  }
}
