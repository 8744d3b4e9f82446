import type {Random} from './random.ts';

type Following = {to: string; share: number; seconds: readonly [from: number, to: number]};

/**
 * What may come after each state of a live order, and after how long: quick enough to be watched. The first row whose
 * share the draw falls into happens; where none does, the order stays as it is.
 */
const FOLLOWING: Readonly<Record<string, readonly Following[]>> = {
  pending: [
    {to: 'cancelled', share: 0.025, seconds: [3, 30]},
    {to: 'paid', share: 1, seconds: [2, 20]},
  ],
  paid: [
    {to: 'cancelled', share: 0.015, seconds: [5, 40]},
    {to: 'shipped', share: 1, seconds: [10, 60]},
  ],
  shipped: [{to: 'delivered', share: 1, seconds: [20, 120]}],
  delivered: [{to: 'refunded', share: 0.035, seconds: [20, 90]}],
};

/** The next state of an order that has just become `status`, and in how many milliseconds; null when that was its last. */
export function nextState(random: Random, status: string): {to: string; inMs: number} | null {
  const following = FOLLOWING[status]?.find(({share}) => random.chance(share));
  if (!following) return null;
  const [from, to] = following.seconds;
  return {to: following.to, inMs: (from + (to - from) * random.next()) * 1000};
}
