import test from 'ava';
import {RateLimit} from './rate-limit.ts';

test('bytes are let through at the rate that was asked for, and what was not used is not saved up', async t => {
  let now = 1_000_000;
  const waits: number[] = [];
  const limit = new RateLimit(1_000_000, {
    now: () => now,
    wait: async ms => {
      waits.push(ms);
      now += ms;
    },
  });
  const {signal} = new AbortController();
  const start = now;
  for (let i = 0; i < 1_000; i++) await limit.pass(5_000, signal);
  t.is(now - start, 5_000); // 5 MB
  t.true(waits.length > 100 && waits.every(ms => ms >= 20));
  now += 60_000;
  const later = now;
  for (let i = 0; i < 200; i++) await limit.pass(5_000, signal);
  t.is(now - later, 1_000);
});
