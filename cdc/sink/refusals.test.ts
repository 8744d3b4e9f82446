import test from 'ava';
import fc from 'fast-check';
import {PipelineError} from '../failures.ts';
import type {Placed} from './dead-letters.ts';
import {halving} from './refusals.ts';

const any = fc.record({
  count: fc.integer({min: 1, max: 300}),
  bad: fc.uniqueArray(fc.nat(299), {maxLength: 12}),
  stopAfter: fc.integer({min: 1, max: 13}),
});

test('S17 of messages some of which are refused, the others are applied in order, with few inserts', async t => {
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(any, async ({count, bad, stopAfter}) => {
      const messages = Array.from(
        {length: count},
        (_, i): Placed => ({
          partition: 0,
          message: {offset: BigInt(i), key: null, value: null, headers: {}},
        }),
      );
      const wrong = bad.filter(i => i < count).sort((a, b) => a - b);
      const at = ({message}: Placed): number => Number(message.offset);
      const applied: number[] = [];
      const refused: number[] = [];
      let inserts = 0;
      const stopped = await halving(messages, {
        insert: async some => {
          inserts += 1;
          if (some.some(one => wrong.includes(at(one)))) throw new PipelineError('ch.rejected', 'refused');
          // Nothing is applied before what was refused in front of it is known.
          if (wrong.some(i => i < at(some[0]!) && !refused.includes(i))) throw new Error('out of order');
          applied.push(...some.map(at));
        },
        refuse: async one => refused.push(at(one)) < stopAfter,
      });
      const last = wrong[stopAfter - 1] ?? count;
      return (
        stopped?.at === wrong[stopAfter - 1] &&
        refused.join() === wrong.slice(0, stopAfter).join() &&
        applied.join() ===
          messages
            .map(at)
            .filter(i => i < last && !wrong.includes(i))
            .join() &&
        inserts <= 1 + 2 * refused.length * Math.ceil(Math.log2(count) + 1)
      );
    }),
    {seed, numRuns: 500},
  );
  t.pass();
});

test('S17 a failure that is not the rows’ own is thrown on', async t => {
  const one: Placed = {partition: 0, message: {offset: 0n, key: null, value: null, headers: {}}};
  const insert = async (): Promise<void> => {
    throw new PipelineError('ch.unavailable', 'down');
  };
  await t.throwsAsync(halving([one, one], {insert, refuse: async () => true}), {code: 'ch.unavailable'});
});
