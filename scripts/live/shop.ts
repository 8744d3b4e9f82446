import pg from 'pg';
import {loadDataset} from '../shop/dataset.ts';
import {loadHistory} from '../shop/history.ts';
import {createShop, type Progress, shopState} from '../shop/schema.ts';
import {StackError} from '../stack/stack.ts';

const SEED = 1;
const DATABASE = 'shop';

/** Makes the shop's database on the stack and fills it where it is not full; gives its URL. */
export async function loadShop(serverUrl: string, dataset: string | undefined): Promise<string> {
  const server = new pg.Client(serverUrl);
  await server.connect();
  const {rowCount} = await server.query('SELECT FROM pg_database WHERE datname = $1', [DATABASE]);
  if (rowCount === 0) await server.query(`CREATE DATABASE ${DATABASE}`);
  await server.end();
  const url = new URL(serverUrl);
  url.pathname = `/${DATABASE}`;
  await createShop(url.href);
  const state = await shopState(url.href);
  if (state.state === 'loaded') {
    console.log(`· the shop is loaded (${state.what})`);
    return url.href;
  }
  const startedAt = performance.now();
  const progress = progressLine();
  if (dataset === undefined) {
    const {customers, products, orders} = await loadHistory(url.href, {seed: SEED, progress});
    tell(`loaded 90 days of a made-up shop: ${customers} customers, ${products} products, ${orders} orders`);
  } else {
    const {orders, lines, bad} = await loadDataset(url.href, dataset, {progress}).catch((error: unknown) => {
      throw new StackError(`${dataset}: ${error instanceof Error ? error.message : error}`);
    });
    tell(`loaded ${dataset}: ${orders} orders, ${lines} lines`);
    if (bad.count > 0) console.log(`! ${bad.count} lines could not be loaded: ${JSON.stringify(bad.first)}`);
  }
  return url.href;

  function tell(line: string): void {
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K');
    console.log(`· ${line} in ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  }
}

const EVERY_MS = 200;

/** On a terminal one line that is written over; elsewhere nothing, since the load takes seconds. */
function progressLine(): Progress {
  let toldAt = 0;
  return ({done, total, what}) => {
    if (!process.stdout.isTTY || Date.now() - toldAt < EVERY_MS) return;
    toldAt = Date.now();
    process.stdout.write(`\r\x1b[K  ${what}: ${Math.floor((100 * done) / Math.max(total, 1))} %`);
  };
}
