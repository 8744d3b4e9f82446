import {Readable} from 'node:stream';
import {type ClickHouseClient, ClickHouseError, createClient} from '@clickhouse/client';
import {z} from 'zod';
import {smaller} from '../compression.ts';
import {type FailureCode, PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {tlsFiles} from '../source/postgres.ts';

export type {ClickHouseClient} from '@clickhouse/client';

/** Of one client. */
export const CONNECTIONS = 16;

/**
 * What ClickHouse (26.7) compiles of an aggregation that has run three times takes times before 1970 for later than all
 * others: `min()` and `max()` of a DateTime64 are other ones then.
 */
export const RIGHT_AGGREGATES = {compile_aggregate_expressions: 0} as const;

export function clickhouseClient(settings: Settings): ClickHouseClient {
  const {ca, cert, key} = tlsFiles(settings, 'CLICKHOUSE');
  return createClient({
    url: settings.FRESHET_CLICKHOUSE_URL,
    username: settings.FRESHET_CLICKHOUSE_USER,
    password: settings.FRESHET_CLICKHOUSE_PASSWORD,
    application: 'freshet',
    request_timeout: settings.FRESHET_SILENCE_MS * 2,
    max_open_connections: CONNECTIONS,
    // Below ClickHouse's own 10 s (keep_alive_timeout), so that no request goes out on a connection it has closed.
    keep_alive: {enabled: true, idle_socket_ttl: 2_500},
    log: {level: 127}, // errors are thrown; the client's own log would tell them twice
    ...(ca && (cert && key ? {tls: {ca_cert: ca, cert, key}} : {tls: {ca_cert: ca}})),
    clickhouse_settings: {
      // The engine of the local stack starts with asynchronous inserts; an insert must be visible when it returns.
      async_insert: 0,
      // Versions make a repeated block harmless; a deduplicated one could be dropped behind a horizon.
      insert_deduplicate: 0,
      // An unknown field, or NULL for a column that has none, is a mistake and must not become a default.
      input_format_skip_unknown_fields: 0,
      input_format_null_as_default: 0,
      date_time_input_format: 'best_effort',
      output_format_json_quote_64bit_integers: 1,
      wait_end_of_query: 1,
      ...RIGHT_AGGREGATES,
    },
  });
}

/** An identifier in ClickHouse's SQL. */
export const chName = (...parts: string[]): string =>
  parts.map(part => `\`${part.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``).join('.');
/** A text literal in ClickHouse's SQL. */
export const chLiteral = (text: string): string =>
  `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** Runs a statement that gives no rows. */
export async function command(client: ClickHouseClient, query: string): Promise<void> {
  try {
    await client.command({query});
  } catch (error) {
    throw asTargetError(error);
  }
}

/**
 * For statements that name keys by the thousand: how long they are is bounded where they are made. No insert of rows
 * has it, since ClickHouse keeps as much of those before it begins to read them.
 */
export const LONG_STATEMENT = {max_query_size: String(1 << 30)} as const;

/** Rows of a query, each parsed by the schema. */
export async function rows<T>(
  client: ClickHouseClient,
  schema: z.ZodType<T>,
  query: string,
  params: Record<string, unknown> = {},
): Promise<T[]> {
  try {
    const result = await client.query({
      query,
      format: 'JSONEachRow',
      query_params: params,
      clickhouse_settings: LONG_STATEMENT,
    });
    return z.array(schema).parse(await result.json());
  } catch (error) {
    throw asTargetError(error);
  }
}

/** Sends rows of JSONEachRow as they are. `statement` ends before FORMAT. */
export async function insertJson(client: ClickHouseClient, statement: string, json: Buffer): Promise<void> {
  try {
    const packed = smaller(json);
    const result = await client.exec({
      query: `${statement} FORMAT JSONEachRow`,
      values: Readable.from([packed ?? json], {objectMode: false}),
      ...(packed && {http_headers: {'Content-Encoding': 'zstd'}}),
    });
    for await (const _ of result.stream); // an answer that is not read keeps its connection
  } catch (error) {
    throw asTargetError(error);
  }
}

/** How ClickHouse reads the text of PostgreSQL's `COPY`, whatever the profile of the user says. */
const COPY_TEXT = {
  // A first row of texts that are the columns' names is a row.
  input_format_tsv_detect_header: 0,
  input_format_tsv_empty_as_default: 0,
  input_format_tsv_allow_variable_number_of_columns: 0,
  input_format_tsv_crlf_end_of_line: 0,
  input_format_tsv_skip_first_lines: '0',
  format_tsv_null_representation: '\\N',
  input_format_allow_errors_num: '0',
  input_format_allow_errors_ratio: 0,
  // NULL for a column that has none is a mistake here too.
  insert_null_as_default: 0,
  date_time_input_format: 'basic',
} as const;

/** Sends rows of COPY's text as they come. `statement` ends before FORMAT. */
export async function insertCopyText(
  client: ClickHouseClient,
  statement: string,
  data: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  try {
    const result = await client.exec({
      query: `${statement} FORMAT TabSeparated`,
      values: Readable.from(data, {objectMode: false, highWaterMark: 1 << 18}),
      clickhouse_settings: COPY_TEXT,
      abort_signal: signal,
    });
    for await (const _ of result.stream);
  } catch (error) {
    throw asTargetError(error);
  }
}

/** Rows of one shape into a table of the pipeline's own. */
export async function insertRows(
  client: ClickHouseClient,
  table: string,
  values: readonly Record<string, unknown>[],
): Promise<void> {
  if (values.length === 0) return;
  await insertJson(
    client,
    `INSERT INTO ${table}`,
    Buffer.from(values.map(value => JSON.stringify(value)).join('\n')),
  );
}

/** ClickHouse's error codes (system.errors) → failure. */
const CODES: Readonly<Record<string, FailureCode>> = {
  '60': 'ch.not_set_up', // UNKNOWN_TABLE
  '81': 'ch.not_set_up', // UNKNOWN_DATABASE
  '159': 'ch.unavailable', // TIMEOUT_EXCEEDED
  '164': 'ch.auth', // READONLY
  '192': 'ch.auth', // UNKNOWN_USER
  '193': 'ch.auth', // WRONG_PASSWORD
  '194': 'ch.auth', // REQUIRED_PASSWORD
  '202': 'ch.overloaded', // TOO_MANY_SIMULTANEOUS_QUERIES
  '209': 'ch.unavailable', // SOCKET_TIMEOUT
  '210': 'ch.unavailable', // NETWORK_ERROR
  '225': 'ch.unavailable', // NO_ZOOKEEPER
  '236': 'ch.unavailable', // ABORTED
  '241': 'ch.overloaded', // MEMORY_LIMIT_EXCEEDED
  '242': 'ch.unavailable', // TABLE_IS_READ_ONLY
  '243': 'ch.overloaded', // NOT_ENOUGH_SPACE
  '252': 'ch.overloaded', // TOO_MANY_PARTS
  '319': 'ch.unavailable', // UNKNOWN_STATUS_OF_INSERT
  '394': 'ch.unavailable', // QUERY_WAS_CANCELLED, also by a stop in good order
  '439': 'ch.overloaded', // CANNOT_SCHEDULE_TASK
  '497': 'ch.auth', // ACCESS_DENIED
  '516': 'ch.auth', // AUTHENTICATION_FAILED
  '999': 'ch.unavailable', // KEEPER_EXCEPTION
  '16': 'ch.target_mismatch', // NO_SUCH_COLUMN_IN_TABLE
  '6': 'ch.rejected', // CANNOT_PARSE_TEXT
  '26': 'ch.rejected', // CANNOT_PARSE_QUOTED_STRING
  '27': 'ch.rejected', // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  '38': 'ch.rejected', // CANNOT_PARSE_DATE
  '41': 'ch.rejected', // CANNOT_PARSE_DATETIME
  '69': 'ch.rejected', // ARGUMENT_OUT_OF_BOUND
  '72': 'ch.rejected', // CANNOT_PARSE_NUMBER
  '117': 'ch.rejected', // INCORRECT_DATA
  '349': 'ch.rejected', // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  '376': 'ch.rejected', // CANNOT_PARSE_UUID
  '407': 'ch.rejected', // DECIMAL_OVERFLOW
  '469': 'ch.rejected', // VIOLATED_CONSTRAINT
};
const NETWORK = /ECONN|EPIPE|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOST|socket hang up|timeout|aborted/i;
/**
 * A refusal without a code of ClickHouse's comes from somebody in between, such as a load balancer that has no server to
 * pass a request on to; the client (1.23.1) throws its text as a plain Error.
 */
const isOfAnother = (error: unknown): boolean =>
  error instanceof Error && error.constructor === Error && !('code' in error);

export function asTargetError(error: unknown): PipelineError {
  if (error instanceof PipelineError) return error;
  const {message = String(error), code = ''} = error as {message?: string; code?: string};
  const failure =
    error instanceof ClickHouseError
      ? (CODES[error.code] ?? 'ch.query')
      : isOfAnother(error) || NETWORK.test(`${code} ${message}`)
        ? 'ch.unavailable'
        : 'ch.query';
  return new PipelineError(failure, `ClickHouse: ${message.slice(0, 500)}${code ? ` (${code})` : ''}`, {
    cause: error,
  });
}
