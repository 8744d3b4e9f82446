import test from 'ava';
import {DirectTransport} from './kafka/direct.ts';
import type {Lsn} from './source/lsn.ts';
import {Watermarks} from './watermarks.ts';

test('complete up to does not go back: what comes with a position of before waits for the next one', async t => {
  const publisher = new DirectTransport();
  const positions: string[] = [];
  const newest: unknown[] = [];
  const stopper = new AbortController();
  void publisher.run(
    {
      accept: async () => {},
      reassigned: () => {},
      watermark: watermark => {
        positions.push(watermark.position);
        newest.push(watermark.newest);
      },
    },
    stopper.signal,
  );
  const watermarks = new Watermarks({publisher, epoch: 0, ends: {}});
  await watermarks.publish(200n as Lsn, 20n);
  watermarks.add({'public.a': '15'}, {});
  await watermarks.publish(100n as Lsn, 10n);
  t.is(watermarks.position, 200n as Lsn);
  await watermarks.publish(200n as Lsn, 30n);
  t.deepEqual(positions, ['200', '200']);
  t.deepEqual(newest, [{}, {'public.a': '15'}]);
  stopper.abort();
});
