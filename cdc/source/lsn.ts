import {PipelineError} from '../failures.ts';

declare const lsn: unique symbol;
/** A WAL position in bytes. Kept as a number: as text, '0/9' sorts after '0/10'. */
export type Lsn = bigint & {readonly [lsn]: true};

export const NO_LSN = 0n as Lsn;

/** '16/B374D848' → position. Throws `pg.protocol` for anything else. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i.exec(text);
  if (!match) throw new PipelineError('pg.protocol', `not an LSN: ${JSON.stringify(text)}`);
  return ((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`)) as Lsn;
}

/** position → '16/B374D848', as PostgreSQL writes it. */
export function formatLsn(position: Lsn): string {
  return `${(position >> 32n).toString(16)}/${(position & 0xffffffffn).toString(16)}`.toUpperCase();
}

/** Milliseconds between 1970-01-01 and PostgreSQL's own epoch, 2000-01-01. */
const POSTGRES_EPOCH_MICROS = 946_684_800_000_000n;

/** A timestamp of the replication protocol (µs since 2000-01-01 UTC) → µs since 1970-01-01 UTC. */
export const fromPostgresMicros = (micros: bigint): bigint => micros + POSTGRES_EPOCH_MICROS;
export const toPostgresMicros = (micros: bigint): bigint => micros - POSTGRES_EPOCH_MICROS;

const ORDINAL_BITS = 48n;
const LSN_BITS = 64n;

/**
 * The order in which PostgreSQL committed: `epoch << 112 | commit LSN << 48 | ordinal in the transaction`, a UInt128
 * in ClickHouse. It is the same at every replay. Ordinals of the stream start at 1; 0 is for snapshot rows.
 */
export function rowVersion(epoch: number, commitLsn: Lsn, ordinal: bigint | number): bigint {
  return (BigInt(epoch) << (LSN_BITS + ORDINAL_BITS)) | (commitLsn << ORDINAL_BITS) | BigInt(ordinal);
}

/** The position of the commit that a version of the stream belongs to. */
export const commitLsnOf = (version: bigint): Lsn =>
  ((version >> ORDINAL_BITS) & ((1n << LSN_BITS) - 1n)) as Lsn;
