import {asPipelineError, type PipelineError} from '../failures.ts';
import {retrying} from '../retry.ts';
import {type Letter, letterPlace, letterTable, type Placed, placeOf} from './dead-letters.ts';
import type {SinkOptions} from './sink-options.ts';

/** With more of one segment refused it is not the rows: the table is parked, whatever the settings say. */
const MOST_REFUSED = 100;

/** Where a table must stop: so many messages were applied or are dead letters, and the next one is why. */
export interface Stopped {
  readonly at: number;
  readonly error: PipelineError;
}

/** Messages that ClickHouse refuses, or that cannot be read: finds them among others, and keeps book of them. */
export class Refusals {
  readonly #options: SinkOptions;
  readonly #signal: AbortSignal;
  /** Open letters, by table. */
  readonly #open = new Map<string, Map<string, Letter>>();

  constructor(options: SinkOptions, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
  }

  /** To be called first: what an earlier run left. */
  async learn(): Promise<void> {
    for (const letter of await this.#retrying(() => this.#options.letters.find(['open'])))
      this.of(letterTable(letter)).set(letterPlace(letter), letter);
  }

  /** The open letters of a table, by place. */
  of(name: string): Map<string, Letter> {
    const known = this.#open.get(name) ?? new Map<string, Letter>();
    this.#open.set(name, known);
    return known;
  }

  /**
   * Applies what can be, in its order, and writes a dead letter of what cannot, before anything behind it is tried.
   * Gives where the table must stop, if it must.
   */
  async apart(
    name: string,
    messages: readonly Placed[],
    insert: (messages: readonly Placed[]) => Promise<void>,
    known: PipelineError,
  ): Promise<Stopped | undefined> {
    const {letters, log} = this.#options;
    const refused = new Set<Placed>();
    const refuse = async (one: Placed, error: PipelineError): Promise<boolean> => {
      refused.add(one);
      const letter = await this.#retrying(() => letters.put(name, {...one, error}));
      if (letter.state !== 'open') return true;
      this.of(name).set(letterPlace(letter), letter);
      log.error(
        {code: error.code, hint: error.hint, table: name},
        `${name}: a dead letter: ${error.message}`,
      );
      return letters.goesOn(name) && refused.size < MOST_REFUSED;
    };
    const stopped = await halving(messages, {insert, refuse}, known);
    const done = messages.slice(0, stopped?.at).filter(one => !refused.has(one));
    await this.applied(name, done);
    return stopped;
  }

  /** Closes the letters of messages that were refused once, and were applied now. */
  async applied(name: string, messages: Iterable<Placed>): Promise<void> {
    const open = this.of(name);
    if (open.size === 0) return;
    const {letters} = this.#options;
    const closed = [...messages].flatMap(one => open.get(placeOf(one)) ?? []);
    if (closed.length === 0) return;
    await this.#retrying(() => letters.close(closed, 'retried'));
    for (const letter of closed) open.delete(letterPlace(letter));
  }

  #retrying<T>(work: () => Promise<T>): Promise<T> {
    return retrying('dead letters', work, {log: this.#options.log, signal: this.#signal});
  }
}

interface Steps {
  readonly insert: (messages: readonly Placed[]) => Promise<void>;
  /** True: go on behind it. */
  readonly refuse: (one: Placed, error: PipelineError) => Promise<boolean>;
}

/** About twice log2 of their number inserts for each message that is refused. */
export async function halving(
  messages: readonly Placed[],
  steps: Steps,
  known?: PipelineError,
): Promise<Stopped | undefined> {
  const error = known ?? (await failureOf(() => steps.insert(messages)));
  if (!error) return undefined;
  if (messages.length === 1) return (await steps.refuse(messages[0]!, error)) ? undefined : {at: 0, error};
  const half = messages.length >> 1;
  const stopped = await halving(messages.slice(0, half), steps);
  if (stopped) return stopped;
  const behind = await halving(messages.slice(half), steps);
  return behind && {...behind, at: behind.at + half};
}

/** A failure that is the rows' own; any other is thrown. */
async function failureOf(work: () => Promise<void>): Promise<PipelineError | undefined> {
  try {
    await work();
    return undefined;
  } catch (thrown) {
    const error = asPipelineError(thrown);
    if (error.reaction !== 'park') throw error;
    return error;
  }
}
