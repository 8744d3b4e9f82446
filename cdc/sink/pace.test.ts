import test from 'ava';
import {Pace} from './pace.ts';

const LONGEST = 300;

function at(): {pace: Pace; clock: {ms: number}} {
  const clock = {ms: 1_000};
  return {clock, pace: new Pace(LONGEST, () => clock.ms)};
}

test('rows of a quiet table wait for nothing', t => {
  const {pace, clock} = at();
  t.true(pace.wait('a') <= 0);
  pace.inserted('a', 5);
  clock.ms += LONGEST;
  t.true(pace.wait('a') <= 0);
});

test('rows of a busy table wait the longer, the more its inserts take, and others’ too', t => {
  const {pace, clock} = at();
  pace.inserted('a', 5);
  const alone = pace.wait('a');
  t.true(alone > 0);
  clock.ms += 50; // it is reckoned anew now and then
  pace.inserted('b', 5);
  t.true(pace.wait('a') + 50 > alone);
  t.true(pace.wait('c') <= 0);
});

test('no row waits for longer than the settings say, however many tables there are', t => {
  const {pace, clock} = at();
  for (let i = 0; i < 500; i++) pace.inserted(`t${i}`, 40);
  clock.ms += 20;
  for (let i = 0; i < 500; i++) t.true(pace.wait(`t${i}`) <= LONGEST - 60);
  clock.ms += LONGEST;
  for (let i = 0; i < 500; i++) t.true(pace.wait(`t${i}`) <= 0);
});
