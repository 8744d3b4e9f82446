/**
 * What the pipeline does about a failure: try again with backoff, set the one table aside, read everything
 * again under a new slot, or stop.
 */
export type Reaction = 'retry' | 'park' | 'resync' | 'halt';

/** One row per failure: what the pipeline does about it, and what a person should do. What has no row halts. */
export const FAILURES = {
  'settings.invalid': {reaction: 'halt', hint: 'correct the setting; `freshet --help` lists them all'},
  'pg.unavailable': {reaction: 'retry', hint: 'is PostgreSQL up, and do host, port and TLS settings fit?'},
  'pg.auth': {
    reaction: 'halt',
    hint: 'check user and password of FRESHET_PG_URL, FRESHET_PG_TLS_CA, and pg_hba.conf',
  },
  'pg.permission': {
    reaction: 'halt',
    hint: 'grant what the message names; `freshet preflight` shows the SQL',
  },
  'pg.preflight': {reaction: 'halt', hint: 'run the SQL that `freshet preflight` prints, then start again'},
  'pg.slot_active': {
    reaction: 'retry',
    hint: 'another process reads this slot; end it, or use another FRESHET_SLOT',
  },
  'pg.slot_blocked': {
    reaction: 'retry',
    hint: 'a transaction older than the slot holds it up; end it in PostgreSQL',
  },
  'pg.slot_lost': {reaction: 'resync', hint: 'raise max_slot_wal_keep_size; the tables are being read again'},
  'pg.other_history': {
    reaction: 'resync',
    hint: 'the server is not the one that was read, though it stands where it stood: all tables are read again',
  },
  'pg.schema_changed': {
    reaction: 'retry',
    hint: 'a table changed, and nothing announced it: it is compared with the catalog, and read again where need be',
  },
  'pg.locked': {
    reaction: 'retry',
    hint: 'a table is being altered, or a transaction holds its lock; look at pg_locks',
  },
  'pg.protocol': {reaction: 'halt', hint: 'report this message; nothing after it was acknowledged'},
  'pg.streaming': {
    reaction: 'retry',
    hint: 'large transactions come after their commit until the next start; free room in FRESHET_SPILL_DIR if it is the disk',
  },
  'pg.query': {reaction: 'halt', hint: 'the cause has the SQLSTATE and the statement'},
  'kafka.unavailable': {reaction: 'retry', hint: 'are the brokers up, and do TLS and SASL settings fit?'},
  'kafka.auth': {reaction: 'halt', hint: 'check FRESHET_KAFKA_SASL_* and the topic ACLs'},
  'kafka.min_isr': {
    reaction: 'halt',
    hint: 'raise min.insync.replicas of the topic, or its replication factor',
  },
  'kafka.topic_refused': {
    reaction: 'halt',
    hint: 'the brokers take no topic of that name (another differs from it by _ for . alone), or a policy forbids it',
  },
  'kafka.message_too_large': {
    reaction: 'halt',
    hint: 'raise max.message.bytes of the topic and message.max.bytes of the broker',
  },
  'kafka.offsets_lost': {
    reaction: 'resync',
    hint: 'messages were deleted before they were read: raise FRESHET_TOPIC_RETENTION_HOURS; the table is being read again',
  },
  'kafka.topic_lost': {
    reaction: 'resync',
    hint: 'somebody deleted the topic, or a broker lost what it had acknowledged; the table is being read again',
  },
  'kafka.bad_message': {
    reaction: 'park',
    hint: 'somebody else wrote to this topic, or an envelope is damaged; see `freshet dead-letter list`',
  },
  'ch.unavailable': {reaction: 'retry', hint: 'is ClickHouse up, and do URL and TLS settings fit?'},
  'ch.overloaded': {
    reaction: 'retry',
    hint: 'too many parts or no memory; merges will catch up, or give it more room',
  },
  'ch.auth': {reaction: 'halt', hint: 'check FRESHET_CLICKHOUSE_USER and _PASSWORD and its grants'},
  'ch.rejected': {
    reaction: 'park',
    hint: 'ClickHouse refused rows of this table; the cause names the column: `freshet dead-letter list`',
  },
  'ch.target_mismatch': {
    reaction: 'halt',
    hint: 'somebody else made or changed this table: drop or rename it, and it is read again',
  },
  'ch.not_set_up': {
    reaction: 'halt',
    hint: 'nothing runs here yet: `freshet run` or `freshet migrate` makes the tables',
  },
  'ch.query': {reaction: 'halt', hint: 'the cause has the code and the statement'},
  'ch.migration_changed': {
    reaction: 'halt',
    hint: 'a released SQL file was edited; restore it and add a new version',
  },
  'ch.migration_failed': {
    reaction: 'halt',
    hint: 'the cause names the statement; mend it and run `freshet migrate`',
  },
  'ch.made_otherwise': {
    reaction: 'halt',
    hint: 'set FRESHET_TIME_ZONE and FRESHET_CURRENCY back; or stop the pipeline, run `freshet migrate --anew`, and start it: the views are filled anew',
  },
  'ch.rollups_taken': {
    reaction: 'retry',
    hint: 'another process took this one for dead; it goes on there, and this one waits',
  },
  'ch.migration_locked': {reaction: 'retry', hint: 'another runner is migrating; it is waited for'},
  'type.unsupported': {
    reaction: 'halt',
    hint: 'leave the column out by a column list in the publication, or exclude the table',
  },
  'value.unrepresentable': {
    reaction: 'park',
    hint: 'a NOT NULL column holds a value ClickHouse has no place for: `freshet dead-letter list`',
  },
  internal: {reaction: 'halt', hint: 'a defect of Freshet: please report it with the log around it'},
} as const satisfies Record<string, {reaction: Reaction; hint: string}>;

export type FailureCode = keyof typeof FAILURES;

/** A failure with a row in `FAILURES`. `table` is set where only one table is concerned ('schema.name'). */
export class PipelineError extends Error {
  readonly code: FailureCode;
  readonly table: string | undefined;
  constructor(code: FailureCode, message: string, options: {cause?: unknown; table?: string} = {}) {
    super(message, options.cause === undefined ? undefined : {cause: options.cause});
    this.name = 'PipelineError';
    this.code = code;
    this.table = options.table;
  }
  /** What the pipeline does about it; only the supervisor and the sink's parking read this. */
  get reaction(): Reaction {
    return FAILURES[this.code].reaction;
  }
  get hint(): string {
    return FAILURES[this.code].hint;
  }
}

/** Any thrown thing as a PipelineError: what is unknown is `internal`, and halts. */
export function asPipelineError(error: unknown): PipelineError {
  if (error instanceof PipelineError) return error;
  return new PipelineError('internal', error instanceof Error ? error.message : String(error), {
    cause: error,
  });
}

/** For the default branch of a switch over a union: a new member then fails to compile. */
export function unreachable(value: never): never {
  throw new PipelineError('internal', `unexpected ${JSON.stringify(value)}`);
}
