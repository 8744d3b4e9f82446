import type {Subscriber} from '../kafka/transport.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import type {ClickHouseClient} from './clickhouse.ts';
import type {Registry} from './registry.ts';

/** What the parts of a sink share. */
export interface SinkOptions {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly registry: Registry;
  readonly subscriber: Subscriber;
  readonly log: Log;
}
