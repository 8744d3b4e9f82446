import test from 'ava';
import {skip} from '../../scripts/stack/skip.ts';
import {Remembered} from '../remembered.ts';
import {kafkaRequest, startProxy} from '../test-support/proxy.ts';
import {server, startPipeline, transport} from '../test-support/start-pipeline.ts';
import {kafkaClient} from './client.ts';
import {KafkaPublisher} from './kafka-publisher.ts';
import {PRODUCERS} from './producer.ts';

for (const producer of Object.keys(PRODUCERS) as (keyof typeof PRODUCERS)[]) {
  test(`${producer}: what is sent behind a send that gave up, but had arrived, is there too`, async t => {
    if (transport() === 'direct') return skip(t, 'there is no Kafka');
    const world = await startPipeline(t, 'CREATE TABLE a (id int PRIMARY KEY)');
    await world.caughtUp();
    await world.stop();
    const network = await startProxy(t, `kafka://${server('TEST_KAFKA_BROKERS')}`);
    const settings = {
      ...world.settings,
      FRESHET_KAFKA_PRODUCER: producer,
      FRESHET_KAFKA_BROKERS: [new URL(network.url).host],
    };
    const publisher = new KafkaPublisher(
      kafkaClient(settings, world.log),
      settings,
      world.log,
      new Remembered(world.ch, settings),
    );
    t.teardown(() => publisher.close());
    await publisher.prepare([]);
    const send = (position: bigint): Promise<void> =>
      publisher.watermark({epoch: 0, position: position.toString(), micros: '1', newest: {}, ends: {}});
    await send(1n);
    const lost = network.on(kafkaRequest('produce'), 'lose answer');
    await t.throwsAsync(send(2n), {code: 'kafka.unavailable'});
    t.is(await publisher.lastPosition(), 2n as never);
    lost.release();
    await send(3n);
    t.is(await publisher.lastPosition(), 3n as never);
  });
}
