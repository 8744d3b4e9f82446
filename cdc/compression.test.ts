import {randomBytes} from 'node:crypto';
import zlib from 'node:zlib';
import test from 'ava';
import {compressed, decompressed, smaller} from './compression.ts';
import {FetchedRecords} from './kafka/read-records.ts';
import {RecordBatch} from './kafka/record-batch.ts';

const envelope = (i: number): Buffer =>
  Buffer.from(
    `{"before":null,"after":{"id":${i},"note":"${'é'.repeat(i % 40)}"},"source":{"lsn":${i * 977}}}`,
  );

function batch(compresses: boolean, values: readonly Buffer[]): Buffer {
  const records = new RecordBatch(compresses);
  for (const value of values) records.add({key: Buffer.from('k'), value, headers: {h: Buffer.from('1')}});
  return Buffer.from(records.seal({producerId: 1n, producerEpoch: 0, sequence: 0}, 0));
}
function read(bytes: Buffer): string {
  const values: string[] = [];
  for (const {value} of new FetchedRecords(bytes, 0n).messages()) values.push(String(value));
  return values.join('\n');
}

test('a compressed batch holds the same messages in less space', t => {
  for (const count of [1, 30, 20_000]) {
    const values = Array.from({length: count}, (_, i) => envelope(i));
    const [plain, packed] = [batch(false, values), batch(true, values)];
    t.is(read(plain), values.join('\n'));
    t.is(read(packed), values.join('\n'));
    if (count === 1) t.is(packed.length, plain.length);
    else t.true(packed.length * 2 < plain.length, `${packed.length} of ${plain.length}`);
  }
  const noise = [randomBytes(5_000)];
  t.deepEqual(batch(true, noise), batch(false, noise));
});

test('bytes of any length come back, also where their frame does not tell how many it has', t => {
  for (const length of [0, 1, 255, 256, 65_791, 65_792, 3_000_000]) {
    const bytes = Buffer.alloc(length, 'abc ');
    t.true(decompressed(compressed(bytes)).equals(bytes));
    t.true(decompressed(zlib.zstdCompressSync(bytes)).equals(bytes));
  }
  t.is(smaller(Buffer.alloc(1_000)), undefined);
});

test('a compressed batch that is damaged, or holds more than a message may, is refused', t => {
  const good = batch(
    true,
    Array.from({length: 100}, (_, i) => envelope(i)),
  );
  for (let at = 21; at < good.length; at += 5) {
    const damaged = Buffer.from(good);
    damaged[at]! ^= 0x10;
    t.throws(() => read(damaged), {code: 'kafka.unavailable'});
  }
  t.throws(() => decompressed(compressed(Buffer.alloc(129 << 20))));
  t.throws(() => decompressed(Buffer.from('no frame')));
});
