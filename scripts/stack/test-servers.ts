import {getContainerRuntimeClient} from 'testcontainers';
import {kafkaMissing, startTemporaryStack} from './stack.ts';
import {StackError} from './stack-error.ts';
import {startContainers} from './test-containers.ts';

/** The servers that tests use, as the environment variables that name them. */
export const TEST_VARIABLES = ['TEST_PG_URL', 'TEST_KAFKA_BROKERS', 'TEST_CLICKHOUSE_URL'] as const;
export type TestVariable = (typeof TEST_VARIABLES)[number];

export interface TestServers {
  /** Where they come from, for a person. */
  readonly from: string;
  /** TEST_KAFKA_BROKERS is missing where Kafka cannot run. */
  readonly env: Partial<Record<TestVariable, string>>;
  stop(): Promise<void>;
}

/** Names a folder with the programs of another PostgreSQL, which is then started instead of the one from npm. */
export const POSTGRES_BIN = 'FRESHET_TEST_POSTGRES_BIN';

/**
 * Servers named by the environment; for those it does not name, containers where an engine answers, else a local stack,
 * also where FRESHET_TEST_POSTGRES_BIN names a PostgreSQL.
 * @throws StackError when that is no PostgreSQL, or another one is named too
 */
export async function startTestServers(
  env: Readonly<Record<string, string | undefined>>,
): Promise<TestServers> {
  const given = Object.fromEntries(
    TEST_VARIABLES.flatMap(name => (env[name] ? [[name, env[name]]] : [])),
  ) as TestServers['env'];
  const names = Object.keys(given);
  const missing = TEST_VARIABLES.filter(name => !given[name]);
  const postgresBin = env[POSTGRES_BIN] || undefined;
  if (postgresBin && given.TEST_PG_URL)
    throw new StackError(`TEST_PG_URL and ${POSTGRES_BIN} name a PostgreSQL each: leave one out`);
  if (missing.length === 0) return {from: names.join(', '), env: given, stop: async () => {}};
  const started =
    !postgresBin && (await engineAnswers()) ? await startContainers(missing) : await startLocal(postgresBin);
  return {
    ...started,
    from: [...names, started.from].join(', and '),
    env: {...started.env, ...given},
  };
}

async function engineAnswers(): Promise<boolean> {
  try {
    await getContainerRuntimeClient();
    return true;
  } catch {
    return false;
  }
}

async function startLocal(postgresBin: string | undefined): Promise<TestServers> {
  const missing = kafkaMissing();
  const kafka = missing === undefined;
  const stack = await startTemporaryStack('test', {kafka, postgresBin});
  return {
    from: `a local stack (PostgreSQL${postgresBin ? ` of ${postgresBin}` : ''}, ClickHouse, ${kafka ? 'Kafka' : `no Kafka: ${missing}`})`,
    env: {
      TEST_PG_URL: stack.pgUrl,
      TEST_CLICKHOUSE_URL: stack.clickhouseUrl,
      ...(stack.kafkaBrokers === null ? {} : {TEST_KAFKA_BROKERS: stack.kafkaBrokers}),
    },
    stop: stack.stop,
  };
}
