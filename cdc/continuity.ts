import {PipelineError} from './failures.ts';
import type {Acknowledged, Landmark} from './remembered.ts';
import type {SourceRow} from './sink/registry.ts';
import {formatLsn, type Lsn, parseLsn} from './source/lsn.ts';
import type {SlotRow} from './source/slot.ts';

/** All by which it is told whether the stream goes on where it stood. */
export interface Found {
  readonly before: SourceRow;
  readonly acknowledged: Acknowledged | undefined;
  /** `position` is where the server's WAL ends. */
  readonly server: {readonly systemIdentifier: string; readonly timeline: number; readonly position: Lsn};
  readonly transport: string;
  readonly cluster: string;
  readonly slot: SlotRow | undefined;
  /** The highest epoch that is written down, of whatever slot. */
  readonly highest: number;
}

/** Why a slot is of no use any more, and what keeps that from happening again. */
const INVALID: Readonly<Record<string, string>> = {
  wal_removed: 'WAL that it needed was removed: raise max_slot_wal_keep_size',
  rows_removed: 'rows of the catalog that it needed were removed, while the server was a standby',
  wal_level_insufficient: 'wal_level was below logical, on the server or on the primary that it followed',
  idle_timeout: 'nobody read it for idle_replication_slot_timeout: raise that, or do not stop for so long',
};

interface Circumstance {
  readonly seen: (found: Found) => boolean;
  readonly told: (found: Found) => string;
  /** Positions may start again lower: what is read from now on outranks all that was written before. */
  readonly newEpoch?: true;
}

/**
 * Where the stream cannot go on from where it stood: the first row that holds is told, and all tables are read again.
 * (What one topic lost is read again alone: `cdc/kafka/`. What nobody but a person can mend halts: `cdc/source/preflight.ts`.)
 */
export const CIRCUMSTANCES = {
  'another server': {
    seen: ({before, server}) => before.system_identifier !== server.systemIdentifier,
    told: ({before, server}) =>
      `the source is another server (system identifier ${server.systemIdentifier}, not ${before.system_identifier})`,
    newEpoch: true,
  },
  'another timeline': {
    // A failover slot goes on: its walsender sent nothing that the standby did not have. The stream must prove it.
    seen: ({before, server, acknowledged, slot}) =>
      before.timeline !== server.timeline && !(acknowledged?.failover && slot?.failover),
    told: ({before, server}) =>
      `the source is on timeline ${server.timeline} now, not ${before.timeline}: it was promoted or restored`,
    newEpoch: true,
  },
  'another slot since': {
    seen: ({before, highest}) => before.epoch < highest,
    told: () => 'the tables were captured by another slot meanwhile',
    newEpoch: true,
  },
  'a server behind us': {
    seen: found => found.server.position < reached(found),
    told: found =>
      `the server's WAL ends at ${formatLsn(found.server.position)}, before ${formatLsn(reached(found))}, up to where it was read: it was restored, or lost what it had`,
    newEpoch: true,
  },
  'another transport': {
    seen: ({before, transport}) => before.transport !== transport,
    told: ({before}) => `the transport was ${before.transport}`,
  },
  'another Kafka cluster': {
    seen: ({acknowledged, cluster}) =>
      acknowledged !== undefined && acknowledged.cluster !== '' && acknowledged.cluster !== cluster,
    told: ({acknowledged, cluster}) => `Kafka is another cluster (${cluster}, not ${acknowledged?.cluster})`,
  },
  'no slot': {
    seen: ({slot}) => slot === undefined,
    told: () => 'the replication slot is gone',
  },
  'a slot that is of no use': {
    seen: ({slot}) => slot?.walStatus === 'lost' || slot?.invalidationReason != null,
    told: ({slot}) =>
      `the replication slot was invalidated: ${INVALID[slot?.invalidationReason ?? 'wal_removed'] ?? slot?.invalidationReason}`,
  },
  'a slot ahead of us': {
    seen: found =>
      found.acknowledged?.epoch === found.before.epoch &&
      found.slot?.confirmedFlush != null &&
      parseLsn(found.slot.confirmedFlush) > reached(found),
    told: found =>
      `the replication slot stands at ${found.slot?.confirmedFlush}, and nothing behind ${formatLsn(reached(found))} was acknowledged: somebody made it anew, advanced it or read from it`,
  },
} as const satisfies Record<string, Circumstance>;

/** The position that the server had reached when we last knew. */
function reached({before, acknowledged}: Found): Lsn {
  const point = BigInt(before.consistent_point) as Lsn;
  return acknowledged?.epoch === before.epoch && acknowledged.position > point
    ? acknowledged.position
    : point;
}

/** Why all tables must be read again; undefined where the stream goes on. */
export function whyAnew(found: Found): {row: string; why: string; newEpoch: boolean} | undefined {
  const rows: readonly [string, Circumstance][] = Object.entries(CIRCUMSTANCES);
  const [row, holds] = rows.find(([, {seen}]) => seen(found)) ?? [];
  return row && holds ? {row, why: holds.told(found), newEpoch: holds.newEpoch ?? false} : undefined;
}

/**
 * A server that was restored and has written since can stand where it stood before, with another past. What was sent
 * last proves that it is the same: where it lies behind the slot's position, it must come again before anything later.
 */
export class History {
  #due: Landmark | undefined;

  /** @param confirmed where the slot stands: the stream begins there. */
  constructor(last: Landmark | undefined, confirmed: Lsn) {
    if (last && last.commitLsn >= confirmed) this.#due = last;
  }

  /** A transaction begins. Throws `pg.other_history`. */
  begins({commitLsn, commitMicros, xid}: Landmark): void {
    const due = this.#due;
    if (!due || commitLsn < due.commitLsn) return;
    if (commitLsn > due.commitLsn || commitMicros !== due.commitMicros || xid !== due.xid) throw differs(due);
    this.#due = undefined;
  }

  /** The server has sent all before the position. Throws `pg.other_history`. */
  passed(position: Lsn): void {
    if (this.#due && position > this.#due.commitLsn) throw differs(this.#due);
  }
}

const differs = ({commitLsn, xid}: Landmark): PipelineError =>
  new PipelineError(
    'pg.other_history',
    `transaction ${xid}, which was sent from ${formatLsn(commitLsn)}, is not there any more: the server was restored, or lost what it had`,
  );
