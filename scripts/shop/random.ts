/** A seeded source of randomness: the same seed and purpose give the same numbers on every machine. */
export type Random = {
  /** A number in [0, 1). */
  next(): number;
  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number;
  chance(probability: number): boolean;
  pick<T>(list: readonly T[]): T;
  /** An index into `weights`, each as likely as its weight. */
  weighted(weights: readonly number[]): number;
  /** How many of something rare happen when `mean` are expected (Poisson; for means up to some hundreds). */
  count(mean: number): number;
};

/**
 * `purpose` separates the sequences drawn from one seed: one more draw for products leaves the orders as they were.
 * The generator is sfc32, seeded by hashing (FNV-1a).
 */
export function createRandom(seed: number, purpose: string): Random {
  let [a, b, c, d] = [hash(`${seed}/a/${purpose}`), hash(`${seed}/b/${purpose}`), hash(`${seed}/c`), 1];
  const next = () => {
    const t = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + t;
    return (t >>> 0) / 0x1_0000_0000;
  };
  for (let i = 0; i < 12; i++) next(); // until the four words are mixed
  return {
    next,
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    chance: probability => next() < probability,
    pick: list => list[Math.floor(next() * list.length)]!,
    weighted: weights => {
      let left = next() * weights.reduce((sum, weight) => sum + weight, 0);
      for (const [index, weight] of weights.entries()) {
        left -= weight;
        if (left < 0) return index;
      }
      return weights.length - 1;
    },
    count: mean => {
      let n = -1;
      for (let product = 1, floor = Math.exp(-mean); product > floor; n++) product *= next();
      return n;
    },
  };
}

/**
 * A long-tail index in [0, size): few are very frequent, most are rare (Zipf-Mandelbrot with exponent 1; in a shop of
 * 1,000 products the best one takes about 4 % of the draws). The ranks are spread over the indexes, in the same way
 * each time, so that the best sellers of the history are also those of the live traffic.
 */
export function longTail(random: Random, size: number): number {
  const offset = 4;
  const rank = Math.floor(offset * ((offset + size) / offset) ** random.next()) - offset;
  const stride = [7919, 7907, 7901].find(prime => size % prime !== 0) ?? 1;
  return (Math.min(rank, size - 1) * stride) % size;
}

function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h | 0;
}
