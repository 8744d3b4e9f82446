import type {Settings} from '../settings/settings.ts';
import {clientConfig, readServerVersion, withClient} from '../source/postgres.ts';
import {readTriggers} from '../source/schema-messages.ts';

/**
 * Prints the SQL of the event triggers, for a superuser to run where the pipeline's own role may not make them: it is
 * all that psql needs. Changes nothing.
 */
export async function triggers(settings: Settings): Promise<number> {
  const {sql, database, state} = await withClient(clientConfig(settings), async client => {
    const found = await readTriggers(client, settings, await readServerVersion(client));
    const {rows} = await client.query<{database: string}>('SELECT current_database() AS database');
    const state = !found.inForce ? 'not there yet' : found.current ? 'in force' : 'those of another release';
    return {sql: found.sql, database: rows[0]!.database, state};
  });
  console.log(`-- Event triggers that tell the pipeline of slot ${settings.FRESHET_SLOT} of schema changes at their exact place.
-- They are ${state}. To be run by a superuser in database ${database}, for instance:
--   freshet triggers | psql -v ON_ERROR_STOP=1 -U postgres ${database}
-- \`freshet teardown\` removes them where it may, and otherwise prints how.
${sql}`);
  return 0;
}
