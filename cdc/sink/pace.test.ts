import test from 'ava';
import {MOST_INSERTS, Pace} from './pace.ts';

const LONGEST = 300;

function at(): {pace: Pace; clock: {ms: number}; insert: (table: string, took: number) => Promise<void>} {
  const clock = {ms: 1_000};
  const pace = new Pace(LONGEST, () => clock.ms);
  const insert = async (table: string, took: number): Promise<void> => {
    const turn = await pace.turn(table);
    clock.ms += took;
    turn.leave();
  };
  return {clock, pace, insert};
}

const first = (turn: Promise<unknown>): Promise<string> =>
  Promise.race([
    turn.then(() => 'has it'),
    new Promise<string>(resolve => setImmediate(() => resolve('waits'))),
  ]);

test('rows of a quiet table wait for nothing', async t => {
  const {pace, clock, insert} = at();
  t.true(pace.wait('a') <= 0);
  await insert('a', 5);
  clock.ms += LONGEST;
  t.true(pace.wait('a') <= 0);
});

test('rows of a busy table wait the longer, the more its inserts take, and others’ too', async t => {
  const {pace, clock, insert} = at();
  await insert('a', 5);
  const alone = pace.wait('a');
  t.true(alone > 0);
  clock.ms += 50; // it is reckoned anew now and then
  await insert('b', 5);
  t.true(pace.wait('a') + 55 > alone);
  t.true(pace.wait('c') <= 0);
});

test('no row waits for longer than the settings say, while inserts take less than half of the time', async t => {
  const {pace, insert} = at();
  for (let i = 0; i < 3; i++) await insert('a', 80);
  t.is(pace.wait('a'), LONGEST - 80);
});

test('many tables wait for longer than that rather than insert all the time', async t => {
  const {pace, clock} = at();
  const TOOK = 40;
  const begin = clock.ms;
  for (let cycle = 0; cycle < 2; cycle++)
    for (let i = 0; i < 600; i += MOST_INSERTS) {
      const turns = Array.from({length: MOST_INSERTS}, (_, k) => pace.turn(`t${i + k}`));
      const all = await Promise.all(turns);
      clock.ms += TOOK;
      for (const turn of all) turn.leave();
    }
  const took = (clock.ms - begin) / 2;
  t.true(took > LONGEST * 2);
  t.is(Math.round(pace.wait('t599') + TOOK), took * 2);
  t.true(pace.wait('t599', took * 100) >= took * 9, 'rows that are late already wait longer');
});

test('tables take turns, and only so many insert at one time', async t => {
  const {pace} = at();
  let now = 0;
  let most = 0;
  const order: number[] = [];
  await Promise.all(
    Array.from({length: MOST_INSERTS * 3}, async (_, i) => {
      const turn = await pace.turn(`t${i}`);
      order.push(i);
      most = Math.max(most, ++now);
      await new Promise(setImmediate);
      now -= 1;
      turn.leave();
    }),
  );
  t.is(most, MOST_INSERTS);
  t.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
});

test('who waits before another attempt leaves the turn to others, and takes it again', async t => {
  const {pace} = at();
  const failing = await Promise.all(Array.from({length: MOST_INSERTS}, (_, i) => pace.turn(`broken${i}`)));
  const other = pace.turn('sound');
  failing[0]!.leave();
  const sound = await other;
  const again = failing[0]!.take();
  t.is(await first(again), 'waits');
  sound.leave();
  await again;
  failing[0]!.leave();
  failing[0]!.leave(); // a second time it gives nothing away
  await pace.turn('one');
  t.is(await first(pace.turn('two')), 'waits');
});
