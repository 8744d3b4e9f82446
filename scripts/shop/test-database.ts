import {randomBytes} from 'node:crypto';
import {setTimeout as sleep} from 'node:timers/promises';
import type {ExecutionContext} from 'ava';
import type {QueryResultRow} from 'pg';
import {skip} from '../stack/skip.ts';
import {connected} from './schema.ts';

export type TestDatabase = {
  url: string;
  name: string;
  rows<R extends QueryResultRow>(sql: string, values?: unknown[]): Promise<R[]>;
};

/** A database of the test's own, dropped after it; null (with a message) where no server was given. */
export async function testDatabase(t: ExecutionContext): Promise<TestDatabase | null> {
  const server = process.env.TEST_PG_URL;
  if (!server) {
    skip(t, 'TEST_PG_URL names no PostgreSQL');
    return null;
  }
  const name = `shop_${randomBytes(6).toString('hex')}`;
  const url = new URL(server);
  url.pathname = `/${name}`;
  await connected(server, client => client.query(`CREATE DATABASE ${name}`));
  t.teardown(() => connected(server, client => client.query(`DROP DATABASE ${name} WITH (FORCE)`)));
  return {
    url: url.href,
    name,
    rows: (sql, values) => connected(url.href, async client => (await client.query(sql, values)).rows),
  };
}

/** Waits until `condition` holds; the test runner's timeout bounds it. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(50);
}
