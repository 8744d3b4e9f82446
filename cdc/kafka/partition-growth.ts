import {setTimeout as sleep} from 'node:timers/promises';
import type {Admin, Kafka} from 'kafkajs';
import type {Log} from '../observe/log.ts';
import {asKafkaError} from './client.ts';
import type {TopicLedger} from './topic-ledger.ts';

/** How often it is looked whether topics have more partitions, or are gone. */
const LOOK_MS = 5_000;
/** For so long nothing is sent while the sinks apply what was sent before. */
const WAIT_MS = 10_000;
const POLL_MS = 100;
/** So long after they did not come so far in that time, as those of a table that is parked never do. */
const WAIT_AGAIN_MS = 300_000;

/**
 * Takes up partitions that were added to a topic. Keys move to other ones then, and a sink would apply a row before
 * the older one of its key that still waits in another partition, from which it may need a value. So keys are routed as
 * before until the sinks have the new partitions, and have applied all that was sent.
 */
export class PartitionGrowth {
  readonly #ledger: TopicLedger;
  readonly #options: {kafka: Kafka; log: Log; group: string; topics: ReadonlyMap<string, string>};
  #timer: NodeJS.Timeout | undefined;
  #looking = false;
  #due = false;
  /** Before this time (performance.now) nothing waits: a topic is taken up where a look finds all applied. */
  #waitAgain = 0;
  /** Topics that were waited for to no avail: the next wait is for others first. */
  readonly #late = new Set<string>();
  #failure: unknown;

  /** @param options.topics table → topic */
  constructor(
    ledger: TopicLedger,
    options: {kafka: Kafka; log: Log; group: string; topics: ReadonlyMap<string, string>},
  ) {
    this.#ledger = ledger;
    this.#options = options;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Throws where a topic is not there any more: capture finds out at its start which, and reads the table again. */
  check(): void {
    if (this.#failure) throw asKafkaError(this.#failure);
  }

  #look(): void {
    if (this.#looking) return;
    this.#looking = true;
    this.#withAdmin(async admin => {
      const {topics} = await admin.fetchTopicMetadata({topics: [...new Set(this.#options.topics.values())]});
      for (const {name, partitions} of topics) this.#ledger.found(name, partitions.length);
      this.#due = this.#ledger.grown().length > 0;
    })
      .catch(error => {
        if ((error as {type?: string}).type === 'UNKNOWN_TOPIC_OR_PARTITION') this.#failure = error;
        else this.#options.log.debug({error: String(error)}, 'topics could not be looked at');
      })
      .finally(() => {
        this.#looking = false;
      });
  }

  async #withAdmin<T>(work: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = this.#options.kafka.admin();
    try {
      await admin.connect();
      return await work(admin);
    } finally {
      await admin.disconnect().catch(() => {});
    }
  }

  /** To be called when nothing is being sent: true where a topic is routed by more partitions from now on. */
  async took(): Promise<boolean> {
    if (!this.#due) return false;
    this.#due = false; // until the next look
    const {log} = this.#options;
    let took = false;
    try {
      await this.#withAdmin(async admin => {
        const now = performance.now();
        const until = now < this.#waitAgain ? now : now + WAIT_MS;
        const isLate = ({topic}: {topic: string}): number => Number(this.#late.has(topic));
        for (const {topic, from, to, ends} of this.#ledger.grown().sort((a, b) => isLate(a) - isLate(b))) {
          if (!(await this.#drained(admin, topic, {to, ends}, until))) continue;
          await this.#ledger.grow(topic);
          took = true;
          log.info({topic, from, to}, `${topic} has ${to} partitions now, and all of them are used`);
        }
      });
    } catch (error) {
      log.debug({error: String(error)}, 'new partitions are not used yet');
    }
    return took;
  }

  /** Have the sinks the new partitions, and have they applied what was sent to the old ones? */
  async #drained(
    admin: Admin,
    topic: string,
    {to, ends}: {to: number; ends: readonly bigint[]},
    until: number,
  ): Promise<boolean> {
    while (true) {
      const [found] = await admin.fetchOffsets({groupId: this.#options.group, topics: [topic]});
      const committed = new Map(found?.partitions.map(({partition, offset}) => [partition, BigInt(offset)]));
      const at = (partition: number): bigint => committed.get(partition) ?? -1n;
      if (Array.from({length: to}, (_, partition) => at(partition)).some(offset => offset < 0n)) return false;
      if (ends.every((end, partition) => at(partition) >= end)) return true;
      if (performance.now() > until) {
        if (performance.now() < this.#waitAgain) return false;
        this.#waitAgain = performance.now() + WAIT_AGAIN_MS;
        this.#late.add(topic);
        this.#options.log.warn(
          {topic},
          `${topic} has ${to} partitions; the new ones are used when the sinks have caught up, which they did not in ${WAIT_MS / 1000} s`,
        );
        return false;
      }
      await sleep(POLL_MS);
    }
  }
}
