import type {Product} from './catalogue.ts';
import {randomCountry} from './people.ts';
import {longTail, type Random} from './random.ts';

export type Line = {productId: number; description: string; quantity: number; mills: number};
export type Order = {
  id: number;
  customerId: number | null;
  status: 'pending' | 'paid' | 'shipped' | 'delivered' | 'cancelled' | 'refunded' | 'return';
  country: string;
  createdMs: number;
  updatedMs: number;
  lines: readonly Line[];
  /** The order that this one gives back; its id is lower. */
  returns: Order | null;
};
/** What of a customer decides about orders; `activity` in (0, 1] is how eager to buy. */
export type Buyer = {country: string; createdMs: number; activity: number};

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const ORDERS_A_DAY = 300;
const GUESTS = 0.07;
const CANCELLED = 0.042;
const REFUNDED = 0.037; // of all orders that get old enough about 3 % of the whole history become refunds
/** Shares of a mean day and a mean hour (UTC), Sunday and midnight first. */
const BY_WEEKDAY = [0.72, 1.16, 1.12, 1.08, 1.1, 1.04, 0.78];
const BY_HOUR = [
  0.25, 0.15, 0.1, 0.1, 0.15, 0.3, 0.55, 0.8, 1.1, 1.35, 1.5, 1.6, 1.75, 1.6, 1.4, 1.3, 1.25, 1.3, 1.45, 1.7,
  1.65, 1.3, 0.85, 0.5,
];
const HOUR_MEAN = BY_HOUR.reduce((sum, share) => sum + share) / 24;
/** The way of an order that nothing happens to: each state, and the hours since the one before. */
const WAY = [
  {status: 'paid', hours: [0.02, 2]},
  {status: 'shipped', hours: [4, 40]},
  {status: 'delivered', hours: [24, 110]},
] as const;

/**
 * The orders of `days` days until `nowMs`, in the order of their ids (which is the order of their creation), returns
 * among them. `buyers` and `products` have the ids 1, 2, …; buyers are sorted by `createdMs`.
 */
export function orderHistory(
  random: Random,
  {buyers, products, days, nowMs}: {buyers: Buyer[]; products: Product[]; days: number; nowMs: number},
): Order[] {
  const orders: Order[] = [];
  const startMs = nowMs - days * DAY;
  let eligible = 0; // how many of the buyers exist by now
  for (let hour = Math.floor(startMs / HOUR) * HOUR; hour < nowMs; hour += HOUR) {
    const [from, until] = [Math.max(hour, startMs), Math.min(hour + HOUR, nowMs)];
    for (const createdMs of momentsIn(random, from, until, (from - startMs) / (nowMs - startMs))) {
      while (eligible < buyers.length && buyers[eligible]!.createdMs <= createdMs) eligible++;
      const customerId = random.chance(GUESTS) ? null : chooseBuyer(random, buyers, eligible);
      const country = customerId === null ? randomCountry(random) : buyers[customerId - 1]!.country;
      const {status, updatedMs} = fate(random, createdMs, nowMs);
      const lines = basket(random, products);
      const order: Order = {id: 0, customerId, country, status, createdMs, updatedMs, lines, returns: null};
      orders.push(order);
      if (status === 'refunded') orders.push(returnOf(order));
    }
  }
  orders.sort((one, other) => one.createdMs - other.createdMs);
  orders.forEach((order, index) => {
    order.id = index + 1;
  });
  return orders;
}

/** The moments of orders within a part of one hour, ascending; trade grows a little over the history (`age` 0 to 1). */
function momentsIn(random: Random, from: number, until: number, age: number): number[] {
  const at = new Date(from);
  const share = BY_WEEKDAY[at.getUTCDay()]! * (BY_HOUR[at.getUTCHours()]! / HOUR_MEAN) * (0.85 + 0.3 * age);
  const mean = ((ORDERS_A_DAY * (until - from)) / DAY) * share;
  const moments = Array.from({length: random.count(mean)}, () => random.between(from, until - 1));
  return moments.sort((one, other) => one - other);
}

function chooseBuyer(random: Random, buyers: Buyer[], eligible: number): number | null {
  if (eligible === 0) return null;
  for (;;) {
    const index = random.between(0, eligible - 1);
    if (random.chance(buyers[index]!.activity)) return index + 1;
  }
}

function basket(random: Random, products: Product[]): Line[] {
  const voucher = random.chance(0.08);
  const wanted = new Set<number>();
  do wanted.add(longTail(random, products.length));
  while (wanted.size < Math.min(12, products.length) && random.chance(0.6));
  return [...wanted].map(index => {
    const quantity = random.chance(0.75) ? random.between(1, 3) : random.between(4, 24);
    const {name, mills} = products[index]!;
    const paid = voucher ? mills - (mills - (mills % 10)) / 10 : mills; // a tenth off, in whole thousandths
    return {productId: index + 1, description: name, quantity, mills: paid};
  });
}

/** How far an order of `createdMs` has come by `nowMs`. */
function fate(random: Random, createdMs: number, nowMs: number): Pick<Order, 'status' | 'updatedMs'> {
  const cancelledMs = random.chance(CANCELLED) ? later(random, createdMs, 0.1, 20) : Number.POSITIVE_INFINITY;
  if (cancelledMs <= nowMs) return {status: 'cancelled', updatedMs: cancelledMs};
  let so: Pick<Order, 'status' | 'updatedMs'> = {status: 'pending', updatedMs: createdMs};
  for (const {status, hours} of WAY) {
    const updatedMs = later(random, so.updatedMs, hours[0], hours[1]);
    if (updatedMs > nowMs) return so;
    so = {status, updatedMs};
  }
  const refundedMs = random.chance(REFUNDED)
    ? later(random, so.updatedMs, 12, 300)
    : Number.POSITIVE_INFINITY;
  return refundedMs <= nowMs ? {status: 'refunded', updatedMs: refundedMs} : so;
}

const later = (random: Random, ms: number, low: number, high: number) =>
  ms + Math.max(1, Math.floor((low + (high - low) * random.next()) * HOUR));

/** The order of status `return` that nets a refunded one: the same lines, given back. */
function returnOf(order: Order): Order {
  const lines = order.lines.map(line => ({...line, quantity: -line.quantity}));
  const at = order.updatedMs;
  return {...order, status: 'return', createdMs: at, updatedMs: at, lines, returns: order};
}
