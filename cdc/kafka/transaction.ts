import {type Lsn, rowVersion} from '../source/lsn.ts';
import {technicalColumns} from '../source/row-encoder.ts';

/** So many last digits of a version are counted as a number. */
const COUNTED = 9;
const CARRY = 10 ** COUNTED;

/** What all events of one transaction share, with the texts of it that each of them has: they are made once. */
export class Transaction {
  readonly epoch: number;
  readonly commitLsn: Lsn;
  /** µs since 1970-01-01 UTC */
  readonly commitMicros: bigint;
  readonly xid: number;
  /** The envelope's time of commit, ms. */
  readonly time: string;
  readonly #behindSequence: string;
  readonly #behindLsn: string;
  readonly #behindOrdinal: string;
  readonly #beforeDigits: string;
  readonly #digits: number;
  readonly #now: string;
  readonly #deleted: string;

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
    this.#behindSequence = `\\"]","ts_us":${micros},"ts_ns":${micros}000,"txId":${xid},"lsn":`;
    this.#behindLsn = `,"xmin":null,"commit_lsn":${commitLsn},"ordinal":`;
    this.#behindOrdinal = `,"epoch":${epoch}},`;
    const first = this.version(0).toString();
    this.#digits = Number(first.slice(-COUNTED));
    this.#beforeDigits = first.length > COUNTED ? `"_version":"${first.slice(0, -COUNTED)}` : '';
    this.#now = `","_is_deleted":0,"_commit_ts":${micros}}`;
    this.#deleted = `","_is_deleted":1,"_commit_ts":${micros}}`;
  }

  version(ordinal: number): bigint {
    return rowVersion(this.epoch, this.commitLsn, ordinal);
  }

  /** `technicalColumns` of the row with that ordinal, without counting in a bigint for each. */
  technical(ordinal: number, deleted: boolean): string {
    const digits = this.#digits + ordinal;
    if (this.#beforeDigits === '' || digits >= CARRY)
      return technicalColumns(this.version(ordinal), deleted, this.commitMicros);
    return `${this.#beforeDigits}${String(digits).padStart(COUNTED, '0')}${deleted ? this.#deleted : this.#now}`;
  }

  /** The rest of the envelope's `source`, from `sequence` on. */
  source(lsn: Lsn, ordinal: number): string {
    const text = lsn.toString();
    return `"sequence":"[null,\\"${text}${this.#behindSequence}${text}${this.#behindLsn}${ordinal}${this.#behindOrdinal}`;
  }
}
