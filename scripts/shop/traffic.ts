import {setTimeout as sleep} from 'node:timers/promises';
import {Pool} from 'pg';
import {nextState} from './order-life.ts';
import {createRandom} from './random.ts';
import {type Known, learn, moveOrder, placeOrder, type Query, SIDE_JOBS} from './traffic-jobs.ts';

/** `orders` counts committed orders, returns not among them; `statements` those sent, BEGIN and COMMIT not counted. */
export type TrafficStats = {orders: number; statements: number; errors: number};
export type Traffic = {
  /** Starts nothing more, waits for what runs, and closes the connections. */
  stop(): Promise<void>;
  stats(): TrafficStats;
};
export type TrafficOptions = {
  /** Orders a second. */
  rate?: number;
  seed?: number;
  /** How many times faster than usual an order goes through its states. */
  pace?: number;
  /** Hears of each failure; traffic goes on after it. */
  onError?: (error: Error) => void;
};

/** One transaction; what it returns is done once that is committed. */
type Job = (query: Query) => Promise<(() => void) | undefined>;

const CONNECTIONS = 8; // also the most jobs that run at once
const TICK_MS = 20;
const LEARN_EVERY_MS = 10_000;
const RETRY_MS = 1_000; // while nothing was learnt yet
/** How much lateness is made up for. More (a server that was away) is left out, as customers would have left. */
const CATCH_UP_MS = 1_000;
const BACKOFF_MS = {first: 100, most: 5_000};
/** SQLSTATE classes that mean that the server goes away, is away, or is full: other errors concern one job only. */
const SERVER_TROUBLE = /^(08|53|57P)/;

/**
 * Lives in a loaded shop: orders at a steady rate, each moving through its states, with everything else that happens
 * in a shop beside them. Works on whatever was loaded; not to be run while a load is. Survives PostgreSQL's restarts.
 */
export function startTraffic(
  pgUrl: string,
  {rate = 20, seed = 1, pace = 1, onError = () => {}}: TrafficOptions = {},
): Traffic {
  if (!(rate > 0 && pace > 0))
    throw new RangeError(`rate and pace must be above 0: ${JSON.stringify({rate, pace})}`);
  const pool = new Pool({
    connectionString: pgUrl,
    application_name: 'freshet shop traffic',
    max: CONNECTIONS,
    connectionTimeoutMillis: 5_000,
    query_timeout: 30_000,
    keepAlive: true,
  });
  // A connection that breaks says so twice, to its query and by this event, which unheard would end the process.
  pool.on('error', () => {});
  pool.on('connect', client => client.on('error', () => {}));
  const orderDraws = createRandom(seed, 'traffic: orders');
  const stateDraws = createRandom(seed, 'traffic: states');
  const sideDraws = createRandom(seed, 'traffic: side jobs');
  const stats: TrafficStats = {orders: 0, statements: 0, errors: 0};
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();
  const ready: Job[] = [];
  const later = new Map<number, Job[]>(); // by the tick in which they are due
  const trouble = {inARow: 0, pausedUntil: 0};
  let known: Known | null = null;

  function pause(): void {
    const now = performance.now();
    if (now < trouble.pausedUntil) return; // the other jobs of the same moment fail, too
    trouble.pausedUntil = now + Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** trouble.inARow++);
  }

  async function transaction(job: Job): Promise<void> {
    const client = await pool.connect().catch((error: unknown) => {
      pause();
      throw error;
    });
    try {
      await client.query('BEGIN');
      const committed = await job((sql, values) => {
        stats.statements++;
        return client.query(sql, values);
      });
      await client.query('COMMIT');
      client.release();
      trouble.inARow = 0;
      committed?.();
    } catch (error) {
      const code = String((error as {code?: unknown}).code ?? '');
      const usable = await client.query('ROLLBACK').then(
        () => true,
        () => false,
      );
      client.release(!usable);
      if (!usable || SERVER_TROUBLE.test(code)) pause();
      throw error;
    }
  }

  function launch(job: Job): void {
    const run = transaction(job)
      .catch((error: unknown) => {
        stats.errors++;
        onError(error instanceof Error ? error : new Error(String(error)));
      })
      .finally(() => running.delete(run));
    running.add(run);
  }

  /** Plans what follows on a committed state. A change that fails is not tried again: a side job finds the order. */
  function planNext(id: string, status: string): void {
    const next = nextState(stateDraws, status);
    if (!next) return;
    const tick = Math.floor((performance.now() + next.inMs / pace) / TICK_MS) + 1; // never one that has passed
    const jobs = later.get(tick) ?? [];
    later.set(tick, jobs);
    jobs.push(async query => {
      const moved = await moveOrder(query, id, status, next.to);
      return moved ? () => planNext(id, next.to) : undefined;
    });
  }

  const orderJob =
    (ids: Known): Job =>
    async query => {
      const id = await placeOrder(query, ids, orderDraws);
      return () => {
        stats.orders++;
        planNext(id, 'pending');
      };
    };

  /** Makes ready what is due by `now`; gives the moment of the next order. */
  function makeReady(ids: Known, now: number, nextOrder: number, lastTick: number): number {
    for (let tick = lastTick + 1; tick <= now / TICK_MS; tick++) {
      ready.push(...(later.get(tick) ?? []));
      later.delete(tick);
    }
    let at = Math.max(nextOrder, now - CATCH_UP_MS);
    for (; at <= now; at += 1000 / rate) {
      if (ready.length > (rate * CATCH_UP_MS) / 1000) continue; // more than this server can do: orders are left out
      ready.push(orderJob(ids));
      for (const {job, oneIn} of SIDE_JOBS)
        if (sideDraws.chance(1 / oneIn))
          ready.push(query => job(query, ids, sideDraws).then(() => undefined));
    }
    return at;
  }

  async function live(): Promise<void> {
    let nextOrder = performance.now();
    let lastTick = Math.floor(nextOrder / TICK_MS);
    let learnAt = 0;
    while (!stopping.signal.aborted) {
      const now = performance.now();
      if (now >= trouble.pausedUntil && now >= learnAt && running.size < CONNECTIONS) {
        learnAt = now + (known ? LEARN_EVERY_MS : RETRY_MS);
        launch(async query => {
          const ids = await learn(query);
          return () => {
            known = ids;
          };
        });
      }
      if (known && now >= trouble.pausedUntil) {
        nextOrder = makeReady(known, now, nextOrder, lastTick);
        lastTick = Math.floor(now / TICK_MS);
        // After trouble one job tries alone: what fails is lost, and that should be little.
        while (ready.length > 0 && running.size < (trouble.inARow > 0 ? 1 : CONNECTIONS))
          launch(ready.shift()!);
      }
      if (ready.length > 0 && running.size > 0) await Promise.race(running);
      else await sleep(TICK_MS, undefined, {signal: stopping.signal}).catch(() => {});
    }
    await Promise.allSettled(running);
    await pool.end();
  }

  const lived = live();
  return {
    stop: () => {
      stopping.abort();
      return lived;
    },
    stats: () => ({...stats}),
  };
}
