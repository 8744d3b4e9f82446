import {PipelineError} from '../failures.ts';
import type {Remembered, TopicState} from '../remembered.ts';

interface Known {
  /** Keys are routed by this count; the topic may have got more since. */
  partitions: number;
  /** How many it has. */
  actual: number;
  readonly ends: bigint[];
  changed: boolean;
}

/**
 * Where each topic ends. A log only grows: one that ends before is not the one that was written to, whoever deleted it,
 * made it anew or cut it short. (kafkajs does not know the ids by which newer brokers tell topics apart.)
 */
export class TopicLedger {
  readonly #remembered: Remembered;
  readonly #topics = new Map<string, Known>();
  /** As the last run left them. */
  #before: Map<string, TopicState> | undefined;

  constructor(remembered: Remembered) {
    this.#remembered = remembered;
  }

  async #load(): Promise<Map<string, TopicState>> {
    this.#before ??= await this.#remembered.topics();
    return this.#before;
  }

  /** Why the topic is not what it was; undefined where it is. `ends` are those that it has, by partition. */
  async problem(topic: string, ends: readonly bigint[]): Promise<string | undefined> {
    const before = (await this.#load()).get(topic);
    const at = before?.ends.findIndex((end, partition) => (ends[partition] ?? -1n) < end) ?? -1;
    if (!before || at < 0) return undefined;
    const now = ends[at] === undefined ? 'is not there any more' : `ends at ${ends[at]}`;
    return `its topic was made again, or lost messages: partition ${at} ${now}, and ended at ${before.ends[at]}`;
  }

  /** Takes a topic as it is. What is not known yet, or not what it was, is routed by all its partitions. */
  async open(topic: string, ends: readonly bigint[]): Promise<void> {
    const same = (await this.problem(topic, ends)) === undefined;
    const before = same ? (await this.#load()).get(topic) : undefined;
    const partitions = before?.partitions ?? ends.length;
    this.#topics.set(topic, {partitions, actual: ends.length, ends: [...ends], changed: true});
    (await this.#load()).delete(topic);
  }

  isOpen(topic: string): boolean {
    return this.#topics.has(topic);
  }

  partitions(topic: string): number | undefined {
    return this.#topics.get(topic)?.partitions;
  }

  /** Messages were written. Throws `kafka.topic_lost` where they lie before what was written earlier. */
  wrote(topic: string, table: string, partition: number, range: {from: bigint; to: bigint}): void {
    const known = this.#topics.get(topic);
    if (!known) return;
    const end = known.ends[partition] ?? 0n;
    if (range.from < end) {
      const message = `${topic}/${partition} was made again, or lost messages: it goes on at ${range.from}, and ended at ${end}`;
      throw new PipelineError('kafka.topic_lost', message, {table});
    }
    known.ends[partition] = range.to;
    known.changed = true;
  }

  /** How many partitions a topic has now. */
  found(topic: string, actual: number): void {
    const known = this.#topics.get(topic);
    if (known) known.actual = actual;
  }

  /** Topics that have more partitions than keys are routed by. */
  grown(): {topic: string; from: number; to: number; ends: readonly bigint[]}[] {
    return [...this.#topics].flatMap(([topic, {partitions, actual, ends}]) =>
      actual > partitions ? [{topic, from: partitions, to: actual, ends}] : [],
    );
  }

  /** Routes by all partitions from now on; written down before, so that the next start does so too. */
  async grow(topic: string): Promise<void> {
    const known = this.#topics.get(topic);
    if (!known) return;
    const {actual, ends} = known;
    const grown = {partitions: actual, ends: Array.from({length: actual}, (_, i) => ends[i] ?? 0n)};
    await this.#remembered.saveTopics(new Map([[topic, grown]]));
    known.partitions = actual;
  }

  /** Writes down what has changed. */
  async save(): Promise<void> {
    const changed = [...this.#topics].filter(([, known]) => known.changed);
    const states = changed.map(
      ([topic, {partitions, ends}]) => [topic, {partitions, ends: [...ends]}] as const,
    );
    for (const [, known] of changed) known.changed = false;
    try {
      await this.#remembered.saveTopics(new Map(states));
    } catch (error) {
      for (const [, known] of changed) known.changed = true;
      throw error;
    }
  }
}
