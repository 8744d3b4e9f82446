import {type Lsn, rowVersion} from '../source/lsn.ts';
import {technicalColumns} from '../source/row-encoder.ts';
import type {Bytes} from '../types/bytes.ts';

/** So many last digits of a version are counted as a number. */
const COUNTED = 9;
const CARRY = 10 ** COUNTED;
const DELETED = '","_is_deleted":';
const ZERO = 0x30;

/** What all events of one transaction share, with the texts of it that each of them has: they are made once. */
export class Transaction {
  readonly epoch: number;
  readonly commitLsn: Lsn;
  /** µs since 1970-01-01 UTC */
  readonly commitMicros: bigint;
  readonly xid: number;
  /** The envelope's time of commit, ms. */
  readonly time: string;
  /** The rest of the envelope's `source`: before, between and behind the row's LSN, its LSN once more, its ordinal. */
  readonly source: readonly [string, string, string, string];
  /** Technical columns, with places for the digits and the mark of a deletion. */
  readonly #technical: string;
  #technicalBytes: Buffer | undefined;
  #isFirst = true;
  readonly #before: number;
  readonly #digits: number;

  constructor({
    epoch,
    commitLsn,
    commitMicros,
    xid,
  }: Pick<Transaction, 'epoch' | 'commitLsn' | 'commitMicros' | 'xid'>) {
    this.epoch = epoch;
    this.commitLsn = commitLsn;
    this.commitMicros = commitMicros;
    this.xid = xid;
    const micros = `${commitMicros}`;
    this.time = `"ts_ms":${commitMicros / 1000n},`;
    this.source = [
      '"sequence":"[null,\\"',
      `\\"]","ts_us":${micros},"ts_ns":${micros}000,"txId":${xid},"lsn":`,
      `,"xmin":null,"commit_lsn":${commitLsn},"ordinal":`,
      `,"epoch":${epoch}},`,
    ];
    const first = this.version(0).toString();
    this.#digits = Number(first.slice(-COUNTED));
    const before = first.length > COUNTED ? `"_version":"${first.slice(0, -COUNTED)}` : '';
    this.#before = before.length;
    this.#technical = `${before}${'0'.repeat(COUNTED)}${DELETED}0,"_commit_ts":${micros}}`;
  }

  version(ordinal: number): bigint {
    return rowVersion(this.epoch, this.commitLsn, ordinal);
  }

  /** Writes `technicalColumns` of the row with that ordinal, without counting in a bigint for each. */
  technical(out: Bytes, ordinal: number, deleted: boolean): void {
    const digits = this.#digits + ordinal;
    if (this.#before === 0 || digits >= CARRY) {
      out.ascii(technicalColumns(this.version(ordinal), deleted, this.commitMicros));
      return;
    }
    const start = out.length;
    if (this.#isFirst) out.ascii(this.#technical);
    else {
      this.#technicalBytes ??= Buffer.from(this.#technical);
      out.bytes(this.#technicalBytes);
    }
    this.#isFirst = false;
    const place = start + this.#before;
    out.digitsAt(place, COUNTED, digits);
    out.buffer[place + COUNTED + DELETED.length] = ZERO + (deleted ? 1 : 0);
  }
}
