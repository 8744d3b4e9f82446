import kafkajs, {type Kafka, type KafkaConfig, type SASLOptions} from 'kafkajs';
import {compressed, decompressed} from '../compression.ts';
import {type FailureCode, PipelineError} from '../failures.ts';
import type {Log} from '../observe/log.ts';
import type {Settings} from '../settings/settings.ts';
import {tlsFiles} from '../source/postgres.ts';
import {onSoundConnections} from './connections.ts';

// It knows of gzip alone.
kafkajs.CompressionCodecs[kafkajs.CompressionTypes.ZSTD] = () => ({
  compress: async ({buffer}: {buffer: Buffer}) => compressed(buffer),
  decompress: async (buffer: Buffer) => decompressed(buffer),
});

/** The only place, with the two adapters beside it, that knows kafkajs. */
export function kafkaClient(settings: Settings, log: Log): Kafka {
  const config: KafkaConfig = {
    clientId: `freshet-${settings.FRESHET_TOPIC_PREFIX}`,
    brokers: [...settings.FRESHET_KAFKA_BROKERS],
    connectionTimeout: Math.min(10_000, settings.FRESHET_SILENCE_MS / 2),
    requestTimeout: settings.FRESHET_SILENCE_MS / 2,
    // Short: the pipeline's own supervisor waits longer, and says so.
    retry: {retries: 5, initialRetryTime: 100, maxRetryTime: 5_000},
    logLevel: kafkajs.logLevel.WARN,
    // Its words at start-up (coordinators load) and on every reconnect are noise; what matters is thrown.
    logCreator: () => entry => log.debug({kafka: entry.namespace}, entry.log.message),
  };
  if (settings.FRESHET_KAFKA_TLS) config.ssl = tlsFiles(settings, 'KAFKA');
  const mechanism = settings.FRESHET_KAFKA_SASL_MECHANISM;
  if (mechanism !== 'none') {
    const username = settings.FRESHET_KAFKA_SASL_USERNAME ?? '';
    config.sasl = {mechanism, username, password: settings.FRESHET_KAFKA_SASL_PASSWORD ?? ''} as SASLOptions;
  }
  return onSoundConnections(config);
}

/** Kafka's protocol errors by name (kafkajs' `type`), then by kafkajs' own class names. */
const CODES: Readonly<Record<string, FailureCode>> = {
  MESSAGE_TOO_LARGE: 'kafka.message_too_large',
  RECORD_LIST_TOO_LARGE: 'kafka.message_too_large',
  OFFSET_OUT_OF_RANGE: 'kafka.offsets_lost',
  TOPIC_AUTHORIZATION_FAILED: 'kafka.auth',
  GROUP_AUTHORIZATION_FAILED: 'kafka.auth',
  CLUSTER_AUTHORIZATION_FAILED: 'kafka.auth',
  SASL_AUTHENTICATION_FAILED: 'kafka.auth',
  INVALID_TOPIC_EXCEPTION: 'kafka.topic_refused',
  POLICY_VIOLATION: 'kafka.topic_refused',
  KafkaJSSASLAuthenticationError: 'kafka.auth',
};

interface KafkaFailure {
  readonly cause?: unknown;
  readonly errors?: readonly KafkaFailure[];
  readonly type?: string;
  readonly name?: string;
  readonly message?: string;
  readonly topic?: string;
}

/** What is not known here is taken for an outage: capture and sink go on from what is durable. */
export function asKafkaError(error: unknown): PipelineError {
  if (error instanceof PipelineError) return error;
  let root = error as KafkaFailure;
  while (root.cause instanceof Error) root = root.cause as KafkaFailure;
  root = root.errors?.[0] ?? root; // creating topics fails with an error for each
  const code = CODES[root.type ?? ''] ?? CODES[root.name ?? ''] ?? 'kafka.unavailable';
  const topic = root.topic === undefined ? '' : `topic ${root.topic}: `;
  return new PipelineError(code, `Kafka: ${topic}${root.message ?? String(error)}`, {cause: error});
}
