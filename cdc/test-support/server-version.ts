import pg from 'pg';
import {server} from './start-pipeline.ts';

/** PostgreSQL's version as one number: 150018 is 15.18. */
export async function serverVersion(client: pg.Client): Promise<number> {
  const {rows} = await client.query<{version: number}>(
    "SELECT current_setting('server_version_num')::int AS version",
  );
  return rows[0]!.version;
}

/** The version of the server that the tests run on, for what must be known before a test has a database. */
export async function testedVersion(): Promise<number> {
  const client = new pg.Client(server('TEST_PG_URL'));
  await client.connect();
  return serverVersion(client).finally(() => client.end());
}
