import {randomBytes} from 'node:crypto';
import {existsSync} from 'node:fs';
import {rename, rm, writeFile} from 'node:fs/promises';
import {connect} from 'node:net';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {findJava, kafkaJars} from '../kafka/kafka.mjs';
import {javaProperties} from './java-properties.ts';
import {anyFreePort} from './ports.ts';
import {type Command, runOnce, type ServerRow} from './server.ts';
import {StackError} from './stack-error.ts';

const MESSAGE_BYTES = 100 << 20;

/** Apache Kafka: one process that is broker and controller. */
export const kafka: ServerRow = {
  title: 'Kafka',
  async prepare({dir, ports}) {
    const java = findJava();
    if (!java.usable) throw new StackError(`Kafka needs Java: ${java.found}`);
    if (!existsSync(kafkaJars()))
      throw new StackError('Kafka is not installed: run node scripts/bootstrap.mjs');
    const data = path.join(dir, 'data');
    const file = path.join(dir, 'server.properties');
    const controller = await anyFreePort();
    if (!existsSync(data)) {
      const unfinished = path.join(dir, 'unfinished');
      await rm(unfinished, {recursive: true, force: true});
      await writeFile(file, properties(ports.kafka, controller, unfinished));
      const id = randomBytes(16).toString('base64url');
      // Joined by '=', since an id may begin with a dash.
      await runOnce(run([], 'kafka.tools.StorageTool', ['format', `--cluster-id=${id}`, '-c', file]));
      await rename(unfinished, data);
    }
    await writeFile(file, properties(ports.kafka, controller, data));
    return run(['-Xms64m', '-Xmx512m', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn'], 'kafka.Kafka', [
      file,
    ]);
  },
  ready: ({ports}) => hasBroker(ports.kafka),
  stop: [{signal: 'SIGTERM', graceMs: 6_000}],
};

function run(flags: readonly string[], main: string, args: readonly string[]): Command {
  const small = ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1'];
  const jars = path.join(fileURLToPath(kafkaJars()), '*');
  // Java finds no file with a letter beyond ASCII in its path where the locale is of another encoding.
  const {LC_ALL, LC_CTYPE, LANG} = process.env;
  const given = LC_ALL || LC_CTYPE || LANG || '';
  const locale = `LC_ALL=${/utf-?8/i.test(given) ? given : 'C.UTF-8'}`;
  return {file: 'env', args: [locale, 'java', ...small, ...flags, '-cp', jars, main, ...args]};
}

function properties(port: number, controller: number, data: string): string {
  return javaProperties({
    'process.roles': 'broker,controller',
    'node.id': 1,
    // Voters given here are not stored with the data, so the controller's port may be another at each start.
    'controller.quorum.voters': `1@127.0.0.1:${controller}`,
    listeners: `PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
    'advertised.listeners': `PLAINTEXT://127.0.0.1:${port}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'log.dirs': data,
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 1,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.num.partitions': 1,
    'transaction.state.log.min.isr': 1,
    'share.coordinator.state.topic.replication.factor': 1,
    'share.coordinator.state.topic.num.partitions': 1,
    'share.coordinator.state.topic.min.isr': 1,
    'group.initial.rebalance.delay.ms': 0,
    // A killed broker may come back only when its old session is over; the usual 9 s are for networks.
    'broker.heartbeat.interval.ms': 500,
    'broker.session.timeout.ms': 4_000,
    'auto.create.topics.enable': false,
    'message.max.bytes': MESSAGE_BYTES,
    'replica.fetch.max.bytes': MESSAGE_BYTES,
    // A request holds the message and what is around it.
    'fetch.max.bytes': MESSAGE_BYTES + (16 << 20),
    'socket.request.max.bytes': MESSAGE_BYTES + (16 << 20),
    'log.cleaner.dedupe.buffer.size': 16 << 20,
  });
}

// A Metadata request (key 3, version 1, correlation id 1, no client id, no topics) behind its length.
const METADATA = Buffer.from('0000000e' + '0003' + '0001' + '00000001' + 'ffff' + '00000000', 'hex');
const BROKERS_AT = 8; // after the answer's length and correlation id
const TIMEOUT_MS = 2_000;

/** Whether the broker takes part in its cluster: it opens its port earlier. Asked without a client library, which would log each refusal. */
function hasBroker(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    let answer = Buffer.alloc(0);
    const socket = connect(port, '127.0.0.1', () => socket.write(METADATA));
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(new Error('no answer')));
    socket.once('error', reject).once('close', () => resolve(false));
    socket.on('data', chunk => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < BROKERS_AT + 4) return;
      resolve(answer.readInt32BE(BROKERS_AT) > 0);
      socket.destroy();
    });
  });
}
