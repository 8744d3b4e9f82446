// The demo shop of docker-compose.analytics.yml: node scripts/demo-shop.ts load | traffic
import {loadHistory} from './shop/history.ts';
import {shopState} from './shop/schema.ts';
import {startTraffic} from './shop/traffic.ts';

const SEED = 1;

const url = process.env.SHOP_PG_URL;
if (!url) throw new Error('SHOP_PG_URL is not set: postgres://user:password@host:5432/database');

/** Fills the shop once; a load that was broken off begins again. */
async function load(pgUrl: string): Promise<void> {
  const found = await shopState(pgUrl);
  if (found.state === 'loaded') return console.log(`the shop is loaded already (${found.what})`);
  const {customers, products, orders} = await loadHistory(pgUrl, {seed: SEED});
  console.log(`loaded ${customers} customers, ${products} products and ${orders} orders`);
}

/** Sells until it is told to stop. */
async function traffic(pgUrl: string): Promise<void> {
  const running = startTraffic(pgUrl, {onError: error => console.error(error.message)});
  console.log('the shop is open');
  await new Promise<void>(resolve => {
    for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => resolve());
  });
  await running.stop();
  console.log(running.stats());
}

const JOBS: Readonly<Record<string, (pgUrl: string) => Promise<void>>> = {load, traffic};
const job = JOBS[process.argv[2] ?? ''];
if (!job) throw new Error(`usage: demo-shop.ts ${Object.keys(JOBS).join(' | ')}`);
await job(url);
