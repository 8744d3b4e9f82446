import test from 'ava';
import {whole} from './connections.ts';

test('answers are handed over whole, however they come in', t => {
  const answers = ['', 'a', 'some bytes', 'x'.repeat(1000), 'last'].map(text => {
    const frame = Buffer.alloc(4 + text.length);
    frame.writeInt32BE(text.length);
    frame.write(text, 4);
    return frame;
  });
  const all = Buffer.concat(answers);
  for (const size of [1, 2, 3, 5, 7, 16, 999, all.length]) {
    const taken: string[] = [];
    const push = whole(
      answer => taken.push(answer.toString('hex')),
      error => t.fail(error.message),
    );
    for (let at = 0; at < all.length; at += size) push(all.subarray(at, at + size));
    t.deepEqual(
      taken,
      answers.map(answer => answer.toString('hex')),
      `pieces of ${size}`,
    );
  }
});

test('what has a negative length is no answer, and nothing behind it is', t => {
  const seen: string[] = [];
  const push = whole(
    answer => seen.push(answer.toString('hex')),
    error => seen.push(error.message),
  );
  push(Buffer.from('00000001aaffffff0000', 'hex'));
  push(Buffer.from('00000001bb', 'hex'));
  t.deepEqual(seen, ['00000001aa', 'this is no answer of Kafka']);
});
