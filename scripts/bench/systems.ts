import {DEBEZIUM_SETTINGS, startDebezium} from './debezium.ts';
import {startCapture, startFreshet} from './freshet.ts';
import type {System} from './ground.ts';
import {findRecvlogical, startCopy, startRecvlogical} from './limits.ts';
import {MATERIALIZED_SETTINGS, startMaterialized} from './materialized.ts';

const listed = (settings: Readonly<Record<string, string | number | boolean>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `${name}=${value}`)
    .join(', ');

/** All systems. A new one is a row here. */
export const SYSTEMS: readonly System[] = [
  {
    name: 'freshet-kafka',
    about: 'Freshet by way of Kafka, `freshet capture` and `freshet sink`, as it is set by default',
    kinds: ['stream', 'latency'],
    servers: ['broker', 'clickhouse'],
    start: ground => {
      const sinks = Array.from({length: ground.workload.sinks ?? 1}, () => 'sink');
      return startFreshet(ground, ['capture', ...sinks]);
    },
  },
  {
    name: 'freshet-direct',
    about: 'Freshet without Kafka, `freshet run` in one process',
    kinds: ['stream', 'latency'],
    servers: ['clickhouse'],
    settings: {FRESHET_TRANSPORT: 'direct'},
    start: ground => startFreshet(ground, ['run']),
  },
  {
    name: 'freshet-capture',
    about: '`freshet capture` alone, from the slot until Kafka has acknowledged',
    kinds: ['stream'],
    servers: ['broker'],
    start: startCapture,
  },
  {
    name: 'freshet-snapshot',
    about: 'Freshet’s snapshot, `freshet run`, two readers; it copies straight into ClickHouse',
    kinds: ['snapshot'],
    servers: ['clickhouse'],
    settings: {FRESHET_TRANSPORT: 'direct'},
    start: ground => startFreshet(ground, ['run']),
  },
  {
    name: 'debezium',
    about:
      'Debezium’s PostgreSQL connector on Kafka Connect (standalone, -Xmx1g) → Kafka → ClickHouse’s `Kafka` engine, a materialized view → ReplacingMergeTree. ' +
      `Worker: ${listed(DEBEZIUM_SETTINGS.worker)}. Connector: ${listed(DEBEZIUM_SETTINGS.connector)}. ` +
      `Kafka engine: ${listed(DEBEZIUM_SETTINGS.kafkaEngine)}. Topics of 4 partitions, as Freshet’s`,
    kinds: ['stream', 'snapshot', 'latency'],
    servers: ['broker', 'clickhouse'],
    start: startDebezium,
  },
  {
    name: 'materialized-postgresql',
    about: `ClickHouse’s experimental database engine MaterializedPostgreSQL: ${listed(MATERIALIZED_SETTINGS)}. It works inside of ClickHouse, so its memory and processor time are in those`,
    kinds: ['stream', 'snapshot', 'latency'],
    servers: ['clickhouse'],
    start: startMaterialized,
  },
  {
    name: 'pg_recvlogical',
    about: `the limit of a slot: ${findRecvlogical() ? 'pg_recvlogical' : 'a reader of our own, since pg_recvlogical is not installed here,'} reads pgoutput and throws it away`,
    kinds: ['stream'],
    servers: [],
    start: startRecvlogical,
  },
  {
    name: 'copy-insert',
    about:
      'the limit of one reader of a snapshot: `COPY … TO STDOUT` piped into `INSERT … FORMAT TabSeparated`',
    kinds: ['snapshot'],
    servers: ['clickhouse'],
    start: startCopy,
  },
];
