import type {Budget} from '../budget.ts';
import type {PipelineError} from '../failures.ts';
import type {Subscriber} from '../kafka/transport.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from './clickhouse.ts';
import type {DeadLetters} from './dead-letters.ts';
import type {Registry} from './registry.ts';

/** What the parts of a sink share. */
export interface SinkOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly registry: Registry;
  readonly subscriber: Subscriber;
  readonly letters: DeadLetters;
  /**
   * Where the subscriber cannot rewind: has capture pass over a table's changes, and its rows of this generation count
   * as gone. False where nothing can be set aside yet.
   */
  readonly passOver?: (table: string, generation: number, error: PipelineError) => Promise<boolean>;
  readonly log: Log;
  readonly budget: Budget;
}
