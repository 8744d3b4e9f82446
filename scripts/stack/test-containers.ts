import {GenericContainer, type StartedTestContainer, Wait} from 'testcontainers';
import {kafkaVersion} from '../kafka/kafka.mjs';
import {anyFreePort} from './ports.ts';
import {forgetPostgresVariables} from './stack.ts';
import type {TestServers, TestVariable} from './test-servers.ts';

interface Started {
  readonly container: StartedTestContainer;
  readonly value: string;
}

/** How each server is started in a container, and the value that its variable then has. */
const CONTAINERS: Record<TestVariable, () => Promise<Started>> = {
  async TEST_PG_URL() {
    forgetPostgresVariables();
    const settings = [
      'wal_level=logical',
      'max_replication_slots=40',
      'max_wal_senders=40',
      'max_connections=200',
      'fsync=off',
    ];
    const container = await new GenericContainer('postgres:18')
      .withEnvironment({POSTGRES_PASSWORD: 'postgres'})
      .withCommand(['postgres', ...settings.flatMap(setting => ['-c', setting])])
      .withExposedPorts(5432)
      // The image starts it twice: first for itself, on a socket, to create the user.
      .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/, 2))
      .start();
    return {container, value: `postgres://postgres:postgres@${address(container, 5432)}/postgres`};
  },
  async TEST_CLICKHOUSE_URL() {
    const container = await new GenericContainer('clickhouse/clickhouse-server:26.7')
      .withEnvironment({CLICKHOUSE_SKIP_USER_SETUP: '1'})
      .withUlimits({nofile: {hard: 262_144, soft: 262_144}})
      .withExposedPorts(8123)
      .withWaitStrategy(Wait.forHttp('/ping', 8123))
      .start();
    return {container, value: `http://${address(container, 8123)}`};
  },
  async TEST_KAFKA_BROKERS() {
    // A broker tells its clients its address, so the port outside must be known before it starts.
    const port = await anyFreePort();
    const container = await new GenericContainer(`apache/kafka:${kafkaVersion()}`)
      .withExposedPorts({container: 9092, host: port})
      .withEnvironment({
        KAFKA_NODE_ID: '1',
        KAFKA_PROCESS_ROLES: 'broker,controller',
        KAFKA_CONTROLLER_QUORUM_VOTERS: '1@localhost:9093',
        KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER',
        KAFKA_LISTENERS: 'PLAINTEXT://:9092,CONTROLLER://:9093',
        KAFKA_ADVERTISED_LISTENERS: `PLAINTEXT://localhost:${port}`,
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: '1',
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: '1',
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: '1',
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: '0',
        KAFKA_AUTO_CREATE_TOPICS_ENABLE: 'false',
        KAFKA_MESSAGE_MAX_BYTES: String(100 << 20),
        KAFKA_REPLICA_FETCH_MAX_BYTES: String(100 << 20),
        KAFKA_SOCKET_REQUEST_MAX_BYTES: String(116 << 20),
      })
      .withWaitStrategy(Wait.forLogMessage(/Kafka Server started/))
      .start();
    return {container, value: `${container.getHost()}:${container.getMappedPort(9092)}`};
  },
};

const address = (container: StartedTestContainer, port: number) =>
  `${container.getHost()}:${container.getMappedPort(port)}`;

/** Starts these servers in containers, which end with this process (testcontainers' own reaper sees to it). */
export async function startContainers(names: readonly TestVariable[]): Promise<TestServers> {
  const settled = await Promise.allSettled(names.map(async name => ({name, ...(await CONTAINERS[name]())})));
  const started = settled.flatMap(result => (result.status === 'fulfilled' ? [result.value] : []));
  const stop = async () => {
    await Promise.all(started.map(({container}) => container.stop()));
  };
  const failed = settled.find(result => result.status === 'rejected');
  if (failed) {
    await stop();
    throw failed.reason;
  }
  return {
    from: 'containers',
    env: Object.fromEntries(started.map(({name, value}) => [name, value])),
    stop,
  };
}
