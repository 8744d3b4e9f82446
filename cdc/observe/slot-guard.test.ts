import test from 'ava';
import type {SlotRow} from '../source/slot.ts';
import {slotHealth} from './slot-guard.ts';

const MIB = 1 << 20;
const sample = (at: number, retained: number, safe: number | null, walStatus = 'reserved') => ({
  at: at * 1000,
  slot: {
    active: true,
    activePid: 1,
    walStatus,
    confirmedFlush: '0/0',
    retainedBytes: String(retained * MIB),
    safeBytes: safe === null ? null : String(safe * MIB),
    invalidationReason: null,
    failover: false,
  } satisfies SlotRow,
});

/** Samples: second, MiB that are kept, MiB until it is lost. */
const CASES: Readonly<
  Record<string, [Parameters<typeof sample>[], Partial<ReturnType<typeof slotHealth>>, RegExp]>
> = {
  'nothing is kept, and there is no limit': [
    [[0, 0, null]],
    {level: 'good', share: undefined, secondsToLoss: undefined},
    /^0\.0 MiB of WAL is kept \(reserved\), without a limit$/,
  ],
  'more and more is kept, but without a limit it is not lost': [
    [
      [0, 0, null],
      [60, 6_000, null],
    ],
    {level: 'good', bytesPerSecond: 100 * MIB, secondsToLoss: undefined},
    /100\.0 MiB more each second$/,
  ],
  'it catches up': [
    [
      [0, 300, 700],
      [100, 200, 800],
    ],
    {level: 'good', bytesPerSecond: -MIB, secondsToLoss: undefined},
    /20 % of what may be$/,
  ],
  'half of what may be is kept': [
    [[0, 600, 400]],
    {level: 'warning', share: 0.6, secondsToLoss: undefined},
    /60 %/,
  ],
  'nearly all of it is kept, and for now no more': [
    [
      [0, 950, 50],
      [60, 950, 50],
    ],
    {level: 'critical', secondsToLoss: undefined},
    /95 %/,
  ],
  'lost within two hours': [
    [
      [0, 0, 10_060],
      [60, 60, 7_000],
    ],
    {level: 'warning', bytesPerSecond: MIB, secondsToLoss: 7_000},
    /lost in about 117 min if that goes on$/,
  ],
  'lost within minutes': [
    [
      [0, 0, 1_060],
      [60, 60, 500],
    ],
    {level: 'critical', secondsToLoss: 500},
    /about 8 min/,
  ],
  'the limit is passed': [[[0, 900, -10, 'unreserved']], {level: 'critical'}, /unreserved/],
  'it is lost': [[[0, 0, null, 'lost']], {level: 'lost'}, /lost/],
};
for (const [what, [samples, wanted, text]] of Object.entries(CASES)) {
  test(`slot guard: ${what}`, t => {
    const health = slotHealth(samples.map(one => sample(...one)));
    t.like(health, wanted);
    t.regex(health.text, text);
  });
}
