import test, {type ExecutionContext} from 'ava';
import kafkajs, {type Admin} from 'kafkajs';
import {skip} from '../scripts/stack/skip.ts';
import {kafkaClient} from './kafka/client.ts';
import {partitionOf} from './kafka/message.ts';
import {topicName, watermarkTopic} from './kafka/topics.ts';
import {runSinkOnly} from './pipeline.ts';
import {verify} from './reconcile/verify.ts';
import {currentPosition} from './source/postgres.ts';
import {keepRunning} from './test-support/command-line.ts';
import {makeWorld, startPipeline, transport, type World} from './test-support/start-pipeline.ts';
import {until} from './test-support/until.ts';

const DDL = `CREATE TABLE a (id int PRIMARY KEY, v int, body text); ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
  INSERT INTO a SELECT i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 300) i`;

async function adminOf(t: ExecutionContext, {settings, log}: World): Promise<Admin> {
  const admin = kafkaClient(settings, log).admin();
  await admin.connect();
  t.teardown(() => admin.disconnect());
  return admin;
}

const equal = async (t: ExecutionContext, {ch, settings}: World): Promise<void> => {
  const verdicts = await verify({client: ch, settings});
  t.deepEqual(
    verdicts.map(({table, verdict}) => `${table} ${verdict}`),
    ['public.a equal'],
  );
};

test('sinks in processes of their own come, go and are killed under load: 1, 3, 2, and verify stays equal', async t => {
  if (transport() === 'direct') return skip(t, 'one process has the only sink');
  const world = await makeWorld(t, DDL, {FRESHET_TOPIC_PARTITIONS: '6', FRESHET_KAFKA_SESSION_MS: '6000'});
  const {pg, environment, settings} = world;
  const admin = await adminOf(t, world);
  keepRunning(t, environment, ['capture']);
  keepRunning(t, environment, ['sink']);
  await world.caughtUp();
  let round = 0;
  /** New rows, rows without their large values, moves, and deletions. */
  const load = async (): Promise<void> => {
    round += 1;
    await pg.query(`INSERT INTO a SELECT ${round} * 1000 + i, 0, repeat(md5(i::text), 100) FROM generate_series(1, 50) i;
      UPDATE a SET v = v + 1 WHERE id % 7 = ${round % 7}; UPDATE a SET id = -id WHERE id % 97 = ${round % 97};
      DELETE FROM a WHERE id % 101 = ${round % 101}`);
  };
  const members = async (count: number): Promise<void> =>
    until(async () => {
      await load();
      const {groups} = await admin.describeGroups([settings.FRESHET_CONSUMER_GROUP]);
      return groups[0]?.state === 'Stable' && groups[0].members.length === count;
    });
  await members(1);
  const second = keepRunning(t, environment, ['sink']);
  const third = keepRunning(t, environment, ['sink']);
  await members(3);
  for (let i = 0; i < 10; i++) await load();
  process.kill(second.pid, 'SIGKILL');
  t.is(await second.died(), 'SIGKILL');
  await members(2);
  await world.caughtUp();
  await equal(t, world);
  await load();
  t.is(await third.stop(), 0, third.log());
  await load();
  await world.caughtUp();
  await equal(t, world);
  t.log(`${round} rounds of changes`);
});

test('complete up to does not go back where the watermarks become another sink’s', async t => {
  if (transport() === 'direct') return skip(t, 'one process has the only sink');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: '6'});
  const {pg, settings, log} = world;
  const admin = await adminOf(t, world);
  await world.caughtUp();
  const watermarks = watermarkTopic(settings.FRESHET_TOPIC_PREFIX);
  /** The member that has the watermarks, when there are so many. */
  const owner = async (count: number): Promise<string> => {
    let found: string | undefined;
    await until(async () => {
      const {groups} = await admin.describeGroups([settings.FRESHET_CONSUMER_GROUP]);
      const {state, members = []} = groups[0] ?? {};
      if (state !== 'Stable' || members.length !== count) return false;
      found = members.find(({memberAssignment}) => {
        const {assignment} = kafkajs.AssignerProtocol.MemberAssignment.decode(memberAssignment) ?? {};
        return assignment?.[watermarks]?.length === 1;
      })?.memberId;
      return found !== undefined;
    });
    return found!;
  };
  const first = await owner(1);
  for (;;) {
    const stopper = new AbortController();
    const second = runSinkOnly({settings, log, signal: stopper.signal});
    const stop = async (): Promise<void> => {
      stopper.abort();
      await second;
    };
    if ((await owner(2)) !== first) {
      t.teardown(stop);
      break;
    }
    await stop();
    await owner(1);
  }
  let highest = 0n;
  for (let i = 0; i < 8; i++) {
    await pg.query('UPDATE a SET v = v + 1');
    const wanted = await currentPosition(pg);
    await until(async () => {
      const [row] = await world.query('SELECT toString(position) AS position FROM {cdc}._watermarks FINAL');
      const position = BigInt(String(row?.position));
      t.true(position >= highest, `${position} behind ${highest}`);
      highest = position;
      return position >= wanted;
    });
  }
});

test('partitions are added while it runs: keys move when all before is applied, and large values are kept', async t => {
  if (transport() === 'direct') return skip(t, 'partitions are Kafka’s');
  const world = await startPipeline(t, DDL, {FRESHET_TOPIC_PARTITIONS: '2'});
  const {pg, settings, log} = world;
  const admin = await adminOf(t, world);
  await world.caughtUp();
  const topic = topicName(settings.FRESHET_TOPIC_PREFIX, 'public', 'a');
  const moves = Array.from({length: 300}, (_, i) => Buffer.from(JSON.stringify({id: i + 1}))).filter(
    key => partitionOf(key, 2) !== partitionOf(key, 5),
  );
  t.true(moves.length > 100);
  await admin.createPartitions({topicPartitions: [{topic, count: 5}]});
  // The large value is written in one transaction and left alone in those behind it.
  let round = 0;
  const load = async (): Promise<void> => {
    round += 1;
    await pg.query(
      `UPDATE a SET body = repeat(md5(id::text || '${round}'), 100) WHERE id % 5 = ${round % 5}`,
    );
    await pg.query(`UPDATE a SET v = ${round}`);
  };
  const used = (): boolean =>
    log.lines.some(line => line.includes('has 5 partitions now, and all of them are used'));
  await until(async () => {
    await load();
    return used();
  });
  for (let i = 0; i < 5; i++) await load();
  await world.caughtUp();
  await equal(t, world);
  const ends = await admin.fetchTopicOffsets(topic);
  t.true(
    ends.every(({high}) => Number(high) > 0),
    JSON.stringify(ends),
  );
  // The next start routes by all of them too.
  await world.stop();
  await load();
  world.start();
  await load();
  await world.caughtUp();
  await equal(t, world);
  t.log(`${round} rounds of changes`);
});
