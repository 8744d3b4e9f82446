import {z} from 'zod';
import type {Settings} from './settings/settings.ts';
import {type ClickHouseClient, chName, insertRows, rows} from './sink/clickhouse.ts';
import type {Lsn} from './source/lsn.ts';

/** A transaction as the stream names it: where its commit lies, and what tells it from another there. */
export interface Landmark {
  readonly commitLsn: Lsn;
  readonly commitMicros: bigint;
  readonly xid: number;
}

/** What was written down before the slot was acknowledged. */
export interface Acknowledged {
  readonly epoch: number;
  /** Nothing behind it was acknowledged. */
  readonly position: Lsn;
  /** The last transaction that was sent before it. */
  readonly last: Landmark | undefined;
  readonly failover: boolean;
  /** The Kafka cluster; '' without Kafka. */
  readonly cluster: string;
}

/** A topic as capture left it. */
export interface TopicState {
  /** By how many of them keys are routed. */
  readonly partitions: number;
  /** Offset behind the last acknowledged message of each partition. */
  readonly ends: readonly bigint[];
}

const Row = z.object({
  epoch: z.number(),
  position: z.string(),
  commit_lsn: z.string(),
  commit_micros: z.string(),
  xid: z.number(),
  failover: z.number(),
  cluster: z.string(),
  version: z.string(),
});
const TopicRow = z.object({
  topic: z.string(),
  partitions: z.number(),
  ends: z.array(z.string()),
  version: z.string(),
});

/**
 * What capture leaves behind for its next start, so that a slot, a server or a topic that is not what it was is
 * noticed. Rows have versions of their own: a clock that steps back must not bring back an older one. So who writes them
 * has read them before.
 */
export class Remembered {
  readonly #client: ClickHouseClient;
  readonly #database: string;
  readonly #pipeline: string;
  #version = 0n;

  constructor(client: ClickHouseClient, settings: Settings) {
    this.#client = client;
    this.#database = settings.FRESHET_CLICKHOUSE_DATABASE;
    this.#pipeline = settings.FRESHET_SLOT;
  }

  #next(): string {
    const clock = BigInt(Date.now()) * 1000n;
    this.#version = clock > this.#version ? clock : this.#version + 1n;
    return this.#version.toString();
  }

  #saw(version: string): void {
    if (BigInt(version) > this.#version) this.#version = BigInt(version);
  }

  async acknowledged(): Promise<Acknowledged | undefined> {
    const [row] = await rows(
      this.#client,
      Row,
      `SELECT * FROM ${chName(this.#database, '_acknowledged')} FINAL WHERE pipeline = {pipeline: String}`,
      {pipeline: this.#pipeline},
    );
    if (!row) return undefined;
    this.#saw(row.version);
    const {epoch, cluster, xid} = row;
    const [position, commitLsn] = [BigInt(row.position) as Lsn, BigInt(row.commit_lsn) as Lsn];
    const last = commitLsn > 0n ? {commitLsn, commitMicros: BigInt(row.commit_micros), xid} : undefined;
    return {epoch, position, last, failover: row.failover === 1, cluster};
  }

  async saveAcknowledged({epoch, position, last, failover, cluster}: Acknowledged): Promise<void> {
    await insertRows(this.#client, chName(this.#database, '_acknowledged'), [
      {
        pipeline: this.#pipeline,
        epoch,
        position: position.toString(),
        commit_lsn: (last?.commitLsn ?? 0n).toString(),
        commit_micros: (last?.commitMicros ?? 0n).toString(),
        xid: last?.xid ?? 0,
        failover: failover ? 1 : 0,
        cluster,
        version: this.#next(),
      },
    ]);
  }

  async topics(): Promise<Map<string, TopicState>> {
    const found = await rows(
      this.#client,
      TopicRow,
      `SELECT topic, partitions, ends, version FROM ${chName(this.#database, '_topics')} FINAL WHERE pipeline = {pipeline: String}`,
      {pipeline: this.#pipeline},
    );
    for (const {version} of found) this.#saw(version);
    return new Map(
      found.map(({topic, partitions, ends}) => [topic, {partitions, ends: ends.map(BigInt)}] as const),
    );
  }

  async saveTopics(topics: ReadonlyMap<string, TopicState>): Promise<void> {
    await insertRows(
      this.#client,
      chName(this.#database, '_topics'),
      [...topics].map(([topic, {partitions, ends}]) => ({
        pipeline: this.#pipeline,
        topic,
        partitions,
        ends: ends.map(String),
        version: this.#next(),
      })),
    );
  }
}
