import test from 'ava';
import {Budget, type Share} from './budget.ts';

/** Has this resolved by now? */
async function settled(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([
    promise.then(() => true),
    new Promise<false>(resolve => setImmediate(resolve, false)),
  ]);
}

const shares = (limit: number, floor: number): [Share, Share] => {
  const budget = new Budget(limit, floor);
  return [budget.share(), budget.share()];
};

test('one stage that holds much makes the other wait, until half of all is free', async t => {
  const [capture, sink] = shares(100, 10);
  sink.hold(95);
  capture.hold(11);
  t.true(capture.over);
  const room = capture.room();
  sink.hold(60);
  t.false(await settled(room));
  sink.hold(39);
  t.true(await settled(room));
});

test('who holds no more than a batch may take, however much the others hold', async t => {
  const [capture, sink] = shares(100, 10);
  sink.hold(500);
  capture.hold(10);
  t.false(capture.over);
  t.true(await settled(capture.room()));
  t.true(sink.over);
  // Its own batch goes away while the other stands still: it goes on.
  capture.hold(20);
  const room = capture.room();
  t.false(await settled(room));
  capture.hold(10);
  t.true(await settled(room));
});

test('a batch that is larger than the budget does not stop a stage for ever', async t => {
  const [capture] = shares(100, 1_000);
  capture.hold(101);
  t.true(capture.over);
  const room = capture.room();
  capture.hold(25);
  t.true(await settled(room));
});

test('what a stage held is free when its share is closed, and who waits is let go when all ends', async t => {
  const budget = new Budget(100, 10);
  const [gone, left] = [budget.share(), budget.share()];
  gone.hold(95);
  left.hold(20);
  const room = left.room();
  budget.close(gone);
  t.true(await settled(room));
  gone.hold(95); // a message that comes late
  t.false(budget.full);
  left.hold(200);
  const last = left.room();
  left.settle(true);
  t.true(await settled(last));
});
