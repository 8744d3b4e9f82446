import test from 'ava';
import fc from 'fast-check';
import kafkajs from 'kafkajs';
import {murmur2, partitionOf} from './message.ts';

/** kafkajs' own partitioner agrees with the Java clients', and is given no partition here. */
const theirs = kafkajs.Partitioners.DefaultPartitioner();
const partition = (key: Buffer, partitions: number): number =>
  theirs({
    topic: 't',
    partitionMetadata: Array.from({length: partitions}, (_, partitionId) => ({
      partitionId,
      partitionErrorCode: 0,
      leader: 0,
      replicas: [],
      isr: [],
    })),
    message: {key, value: null},
  });

test('any key goes to the partition that kafkajs would choose', t => {
  const key = fc.oneof(fc.uint8Array({maxLength: 60}), fc.json().map(Buffer.from));
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(key, fc.integer({min: 1, max: 300}), (bytes, partitions) => {
      const buffer = Buffer.from(bytes);
      return partitionOf(buffer, partitions) === partition(buffer, partitions);
    }),
    {seed, numRuns: 2_000},
  );
  t.pass();
});

// From Apache Kafka's own UtilsTest.testMurmur2.
const JAVA: Readonly<Record<string, number>> = {
  '21': -973932308,
  foobar: -790332482,
  'a-little-bit-long-string': -985981536,
  'a-little-bit-longer-string': -1486304829,
  lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
};
for (const [text, hash] of Object.entries(JAVA)) {
  test(`murmur2 of ${text} is what Java computes`, t => {
    t.is(murmur2(Buffer.from(text)), hash);
  });
}
