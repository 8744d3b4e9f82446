import {z} from 'zod';
import {asPipelineError, PipelineError} from '../failures.ts';
import {HEADER, type InMessage, versionOf} from '../kafka/message.ts';
import type {DeadLetterTopic} from '../kafka/transport.ts';
import {failpoint} from '../observe/failpoint.ts';
import {metrics} from '../observe/metrics.ts';
import type {Settings} from '../settings/settings.ts';
import {nameMatcher} from '../source/catalog.ts';
import {tableName} from '../source/table-schema.ts';
import {type ClickHouseClient, chName, insertRows, rows} from './clickhouse.ts';
import {Registry} from './registry.ts';

export const LetterState = z.enum(['open', 'retried', 'dropped', 'superseded']);
export type LetterState = z.infer<typeof LetterState>;

const Letter = z.object({
  schema_name: z.string(),
  table_name: z.string(),
  topic_partition: z.number(),
  topic_offset: z.string(),
  version: z.string(),
  key: z.string(),
  code: z.string(),
  reason: z.string(),
  state: LetterState,
  superseded_by: z.string(),
  dead_letter_offset: z.string(),
  message_key: z.string(),
  message_value: z.string(),
  message_headers: z.string(),
  /** µs since 1970 */
  at: z.string(),
  updated_at: z.string(),
});
export type Letter = z.infer<typeof Letter>;

/** A message with its partition. */
export interface Placed {
  readonly partition: number;
  readonly message: InMessage;
}

/** A message that cannot be applied, and why. */
export interface Refused extends Placed {
  readonly error: PipelineError;
}

/**
 * Names a letter among those of its table: by its version, since a change can come into a topic twice; by its offset
 * where no version is known.
 */
export const placeOf = ({partition, message}: Placed): string => {
  const version = versionOf(message.headers[HEADER.row]);
  return version === '0' ? `${partition}/${message.offset}` : `${partition}/v${version}`;
};
export const letterPlace = ({topic_partition, topic_offset, version}: Letter): string =>
  version === '0' ? `${topic_partition}/${topic_offset}` : `${topic_partition}/v${version}`;
/** As people name it: by its place in the topic, or where there is none by its version. */
export const shortPlace = (letter: Letter): string =>
  letter.topic_offset === '0' && letter.version !== '0'
    ? letter.version
    : `${letter.topic_partition}/${letter.topic_offset}`;
export const letterTable = (letter: Letter): string => tableName(letter.schema_name, letter.table_name);

const NOT_THERE = '-1';
const LARGEST_HEADER = 4_000;

/**
 * Messages that could not be applied, in `_dead_letters`, and with Kafka in a topic too. A letter has one row whatever
 * is replayed. A letter that was closed keeps no values.
 */
export class DeadLetters {
  readonly #client: ClickHouseClient;
  readonly #settings: Settings;
  readonly #topic: DeadLetterTopic | undefined;
  readonly #goesOn: (name: string) => boolean;

  constructor(client: ClickHouseClient, settings: Settings, topic?: DeadLetterTopic) {
    this.#client = client;
    this.#settings = settings;
    this.#topic = topic;
    this.#goesOn = nameMatcher(settings.FRESHET_DEAD_LETTER_TABLES);
  }

  get #table(): string {
    return chName(this.#settings.FRESHET_CLICKHOUSE_DATABASE, '_dead_letters');
  }

  /** Does the table go on behind a dead letter? Otherwise it is parked there. */
  goesOn(name: string): boolean {
    return this.#goesOn(name);
  }

  /** Letters in these states, in the order of their versions: of all tables or one, with their messages or without. */
  async find(
    states: readonly LetterState[],
    {table, place, bytes = false}: {table?: string; place?: string; bytes?: boolean} = {},
  ): Promise<Letter[]> {
    const own = table === undefined ? '' : "AND concat(schema_name, '.', table_name) = {table: String}";
    const [partition, at = ''] = place?.split('/') ?? [];
    const version = at.startsWith('v') ? at.slice(1) : '0';
    const one =
      place === undefined
        ? ''
        : `AND topic_partition = {partition: UInt32} AND letters.version = {version: UInt128}
           ${version === '0' ? 'AND topic_offset = {offset: UInt64}' : ''}`;
    const lean = bytes ? '' : "REPLACE ('' AS message_key, '' AS message_value, '' AS message_headers)";
    return rows(
      this.#client,
      Letter,
      `SELECT * ${lean} FROM (SELECT * REPLACE (toString(version) AS version, toString(superseded_by) AS superseded_by,
           toString(toUnixTimestamp64Micro(at)) AS at, toString(toUnixTimestamp64Micro(updated_at)) AS updated_at)
         FROM ${this.#table} AS letters FINAL WHERE has({states: Array(String)}, state) ${own} ${one})
       ORDER BY schema_name, table_name, toUInt128(version), topic_partition, topic_offset`,
      {
        states,
        ...(table !== undefined && {table}),
        ...(place !== undefined && {partition, version, offset: at}),
      },
    );
  }

  /** Stores the letter where it is not known yet, in the topic first; gives it as it is now. */
  async put(name: string, refused: Refused): Promise<Letter> {
    const [known] = await this.find(LetterState.options, {table: name, place: placeOf(refused)});
    if (known) return known;
    const {partition, message, error} = refused;
    const plain = (bytes: Buffer | null | undefined): string => bytes?.toString('base64') ?? '';
    const headers = Object.entries(message.headers).map(([header, held]) => [header, plain(held)]);
    const now = (BigInt(Date.now()) * 1000n).toString();
    const {schema, table} = await this.#tableId(name);
    const letter: Letter = {
      schema_name: schema,
      table_name: table,
      topic_partition: partition,
      topic_offset: this.#settings.FRESHET_TRANSPORT === 'direct' ? '0' : message.offset.toString(),
      version: versionOf(message.headers[HEADER.row]),
      key: message.key?.toString('utf8') ?? '',
      code: error.code,
      reason: error.message,
      state: 'open',
      superseded_by: '0',
      dead_letter_offset: await this.#toTopic(name, refused),
      message_key: plain(message.key),
      message_value: plain(message.value),
      message_headers: JSON.stringify(Object.fromEntries(headers)),
      at: now,
      updated_at: now,
    };
    failpoint('dead_letter.in_topic');
    await insertRows(this.#client, this.#table, [letter]);
    failpoint('dead_letter.written');
    metrics.deadLetters.inc({table: name});
    return {...letter, message_key: '', message_value: '', message_headers: ''};
  }

  async #tableId(name: string): Promise<{schema: string; table: string}> {
    const known = await new Registry(this.#client, this.#settings).everCaptured();
    const found = known.find(table => table.name === name);
    if (!found) throw new PipelineError('internal', `a dead letter of ${name}, which nobody captured`);
    return found;
  }

  async #toTopic(name: string, {partition, message, error}: Refused): Promise<string> {
    if (!this.#topic) return NOT_THERE;
    try {
      return await this.#topic.send(message, {
        'freshet.dead.table': name,
        'freshet.dead.partition': String(partition),
        'freshet.dead.offset': String(message.offset),
        'freshet.dead.version': versionOf(message.headers[HEADER.row]),
        'freshet.dead.code': error.code,
        'freshet.dead.reason': error.message.slice(0, LARGEST_HEADER),
      });
    } catch (thrown) {
      // Its bytes are in ClickHouse all the same.
      if (asPipelineError(thrown).code === 'kafka.message_too_large') return NOT_THERE;
      throw thrown;
    }
  }

  /** What became of letters. Their values are kept no longer. */
  async close(letters: readonly Letter[], state: LetterState, supersededBy = 0n): Promise<void> {
    const now = BigInt(Date.now()) * 1000n;
    await insertRows(
      this.#client,
      this.#table,
      letters.map(letter => ({
        ...letter,
        state,
        superseded_by: supersededBy.toString(),
        message_key: '',
        message_value: '',
        message_headers: '',
        // Behind what was written before, whichever clock that came from.
        updated_at: (now > BigInt(letter.updated_at) ? now : BigInt(letter.updated_at) + 1n).toString(),
      })),
    );
  }

  /** Whatever is older than `version` has been read again, or is gone. */
  async supersede(table: string, version: bigint): Promise<void> {
    const older = (await this.find(['open', 'dropped'], {table})).filter(
      letter => BigInt(letter.version) > 0n && BigInt(letter.version) < version,
    );
    await this.close(older, 'superseded', version);
  }
}

/** How many open letters each table has, and the first reason; tables without one are not in it. */
export async function openLetters(
  client: ClickHouseClient,
  settings: Settings,
): Promise<Map<string, {letters: number; reason: string}>> {
  const found = await rows(
    client,
    z.object({name: z.string(), letters: z.coerce.number(), reason: z.string()}),
    `SELECT concat(schema_name, '.', table_name) AS name, count() AS letters, argMin(reason, at) AS reason
     FROM ${chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_dead_letters')} FINAL WHERE state = 'open' GROUP BY name`,
  ).catch((error: unknown) => {
    if (error instanceof PipelineError && error.code === 'ch.not_set_up') return [];
    throw error;
  });
  return new Map(found.map(({name, ...rest}) => [name, rest]));
}

export const lettersText = ({letters, reason}: {letters: number; reason: string}): string =>
  `${letters} dead ${letters === 1 ? 'letter' : 'letters'} (${reason})`;

/** Keys of a table with a change that is not in ClickHouse, and its version: only a newer image is what the row was. */
export async function deadVersions(
  client: ClickHouseClient,
  settings: Settings,
  name: string,
): Promise<Map<string, bigint>> {
  const found = await rows(
    client,
    z.object({key: z.string(), newest: z.string()}),
    `SELECT key, toString(max(version)) AS newest FROM ${chName(settings.FRESHET_CLICKHOUSE_DATABASE, '_dead_letters')} FINAL
     WHERE concat(schema_name, '.', table_name) = {name: String} AND state IN ('open', 'dropped')
     GROUP BY key`,
    {name},
  );
  return new Map(found.map(({key, newest}) => [key, BigInt(newest)]));
}

/** The message of a letter, as it came. */
export function messageOf(letter: Letter): Placed {
  const bytes = (text: string): Buffer => Buffer.from(text, 'base64');
  const headers = z.record(z.string(), z.string()).parse(JSON.parse(letter.message_headers || '{}'));
  return {
    partition: letter.topic_partition,
    message: {
      offset: BigInt(letter.topic_offset),
      key: letter.message_key === '' ? null : bytes(letter.message_key),
      value: bytes(letter.message_value),
      headers: Object.fromEntries(Object.entries(headers).map(([name, held]) => [name, bytes(held)])),
    },
  };
}
