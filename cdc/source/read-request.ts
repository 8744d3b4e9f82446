import type {Settings} from '../settings/settings.ts';
import {type CatalogTable, describeLocked, readCatalog} from './catalog.ts';
import type {Lsn} from './lsn.ts';
import {clientConfig, readServerVersion, withClient} from './postgres.ts';
import {messagePrefix, type SchemaMessage} from './schema-messages.ts';
import {readSlot} from './slot.ts';
import type {Problem} from './table-problems.ts';
import {tableName} from './table-schema.ts';
import {planTable} from './tables.ts';

export type Asked =
  | {readonly position: Lsn; readonly active: boolean}
  | {readonly problems: readonly Problem[]};

/**
 * Asks a capture, by a message in the stream, to read tables again beside it: where all of them can be captured as they
 * are now.
 */
export async function requestRead(settings: Settings, names: readonly string[]): Promise<Asked> {
  return withClient(clientConfig(settings), async client => {
    const slot = await readSlot(client, settings.FRESHET_SLOT);
    if (!slot) {
      const message = `there is no slot ${settings.FRESHET_SLOT}: the next start reads all tables anyway`;
      return {problems: [{message}]};
    }
    const version = await readServerVersion(client);
    const oids = (await readCatalog(client, settings, version))
      .filter(({schema, table}) => names.includes(tableName(schema, table)))
      .map(({oid}) => oid);
    let problems: Problem[] = [];
    const {position} = await describeLocked(client, settings, version, oids, async tables => {
      problems = problemsWith(tables, names, settings, version);
      if (problems.length > 0) return;
      const message: SchemaMessage = {tables, resync: true};
      await client.query('SELECT pg_logical_emit_message(true, $1, $2)', [
        messagePrefix(settings),
        JSON.stringify(message),
      ]);
    });
    return problems.length > 0 ? {problems} : {position, active: slot.active};
  });
}

function problemsWith(
  tables: readonly CatalogTable[],
  names: readonly string[],
  settings: Settings,
  serverVersion: number,
): Problem[] {
  const found = new Set(tables.map(({schema, table}) => tableName(schema, table)));
  return [
    ...names
      .filter(name => !found.has(name))
      .map(name => ({message: `${name}: it is not there at the source, or the settings leave it out`})),
    ...tables.flatMap(table => planTable(table, settings, serverVersion).problems),
  ];
}
