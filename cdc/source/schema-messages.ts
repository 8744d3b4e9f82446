import {createHash} from 'node:crypto';
import type {ClientBase} from 'pg';
import {z} from 'zod';
import {PipelineError} from '../failures.ts';
import type {Settings} from '../settings/settings.ts';
import {CAPTURABLE, CatalogTable, describeSql, publishedSql} from './catalog.ts';
import {asSourceError, VALUE_SETTINGS} from './postgres.ts';
import {pgLiteral, pgName} from './table-schema.ts';

/**
 * What tells of schema changes: transactional logical messages, so that each stands among the rows at its own place.
 * The event triggers write them where the role may create such; the catalog watch does otherwise, and later.
 */
export const SchemaMessage = z.object({
  /** What the tables are now. */
  tables: z.array(CatalogTable).nullish(),
  /** Tables that the command was about; one that is not described is none that can be captured any more. */
  named: z.array(z.number()).nullish(),
  /** From the triggers: tables that nobody else can have altered between the description and the commit. */
  locked: z.array(z.number()).nullish(),
  /** All that is in the publication now: what is not named here was taken out. */
  published: z.array(z.number()).nullish(),
  rewritten: z.number().nullish(),
  /** These tables are to be read again, as a person asked. */
  resync: z.boolean().nullish(),
  /** From the watch: rows may have come before it in the new shape. */
  late: z.boolean().nullish(),
  /** From the watch: are the triggers in force, so that what they would have told did not happen? */
  watched: z.boolean().nullish(),
});
export type SchemaMessage = z.infer<typeof SchemaMessage>;

/** `prefix` of the messages of one pipeline. */
export const messagePrefix = ({FRESHET_SLOT}: Settings): string => `freshet:${FRESHET_SLOT}`;

export function parseSchemaMessage(content: Buffer): SchemaMessage {
  const parsed = SchemaMessage.safeParse(JSON.parse(content.toString('utf8')));
  if (!parsed.success) {
    throw new PipelineError(
      'pg.protocol',
      `a schema message that is none of ours: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}

const SCHEMA = 'freshet';
/** Names of function and triggers are cut at 63 bytes; a slot may have as many. */
const objectName = (settings: Settings): string => `ddl_${settings.FRESHET_SLOT}`.slice(0, 54);
/** Modes of lock under which others may still alter a table, attach a partition, or publish it otherwise. */
const WEAK_MODES = ['AccessShareLock', 'RowShareLock', 'RowExclusiveLock', 'SIReadLock'];
/** What can change how a captured table looks; temporary tables are passed over within. */
const EVENTS = ['ddl_command_end', 'sql_drop', 'table_rewrite'] as const;
const triggerName = (settings: Settings, event: string): string =>
  pgName(`${objectName(settings)}_${event.slice(event.lastIndexOf('_') + 1)}`);

/**
 * The SQL that makes the function and its triggers, to be run by a superuser; `role` is the pipeline's. The function
 * works with its owner's rights, so that whoever alters a table needs none of his own. It must not belong to the
 * pipeline's role, which could make it work with those of a superuser who alters something. A failure within never
 * stops the command that fired it, nor does another table's lock for long: the catalog watch finds what was missed.
 *
 * A message counts where its transaction commits, and says what tables were before. So it names those whose lock the
 * transaction holds until then. In one that keeps its first snapshot what was read may be older than the lock, so no
 * table counts as locked there, and those that the command was about are to be read again.
 *
 * An empty message follows each: PostgreSQL (18.4) orders what sub-transactions wrote by position, and takes a
 * message's end but a row's start for it, so a row right behind a message can come before it. Before the empty one it
 * may.
 */
function triggerSql(settings: Settings, {serverVersion, role}: Server): string {
  const options = {publication: settings.FRESHET_PUBLICATION, serverVersion, role};
  const name = objectName(settings);
  const prefix = pgLiteral(messagePrefix(settings));
  const set = Object.entries(VALUE_SETTINGS)
    .filter(([setting]) => setting !== 'client_encoding')
    .map(([setting, value]) => `SET ${setting} = ${value}`)
    .join(' ');
  const published = `${publishedSql(settings.FRESHET_PUBLICATION, serverVersion)} IS NOT NULL`;
  const condition = `c.oid = ANY(named) OR roots AND c.relkind = 'p' OR wide AND ${published}`;
  return `CREATE SCHEMA IF NOT EXISTS ${SCHEMA};
CREATE OR REPLACE FUNCTION ${pgName(SCHEMA, name)}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' SET jit = off ${set} AS $freshet$
DECLARE
  named oid[];
  locked oid[];
  roots bool := false;
  wide bool := false;
BEGIN
  IF tg_event = 'table_rewrite' THEN
    PERFORM pg_logical_emit_message(true, ${prefix}, json_build_object('rewritten', coalesce(
      pg_partition_root(pg_event_trigger_table_rewrite_oid())::oid, pg_event_trigger_table_rewrite_oid())::bigint)::text);
    PERFORM pg_logical_emit_message(true, ${prefix}, '{}');
    RETURN;
  ELSIF tg_event = 'sql_drop' THEN
    SELECT array_agg(objid) FILTER (WHERE classid = 'pg_class'::regclass),
      coalesce(bool_or(object_type = 'table'), false),
      coalesce(bool_or(object_type IN ('type', 'domain', 'schema', 'publication relation', 'publication namespace')), false)
    INTO named, roots, wide
    FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND object_type NOT LIKE 'index%';
    -- An identity index that is dropped is named by its table, which is not known any more.
    wide := wide OR EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND object_type = 'index' AND original);
  ELSE
    SELECT array_agg(coalesce(pg_partition_root(t.relation)::oid, t.relation)) FILTER (WHERE t.relation IS NOT NULL),
      coalesce(bool_or(o.object_type IN ('type', 'composite type', 'domain', 'schema', 'publication', 'publication relation', 'publication namespace')), false)
    INTO named, wide
    FROM pg_event_trigger_ddl_commands() o
    LEFT JOIN pg_class r ON o.classid = 'pg_class'::regclass AND r.oid = o.objid
    CROSS JOIN LATERAL (SELECT coalesce((SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = r.oid), r.oid) AS relation) t
    WHERE o.schema_name IS DISTINCT FROM 'pg_temp' AND r.relpersistence IS DISTINCT FROM 't'
      AND (r.oid IS NULL OR r.relkind IN ('r', 'p', 'i', 'I', 'c'));
  END IF;
  IF named IS NULL AND NOT roots AND NOT wide THEN RETURN; END IF;
  IF current_setting('transaction_isolation') LIKE 'read %' THEN
    SELECT array_agg(DISTINCT relation) INTO locked FROM pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND mode NOT IN (${WEAK_MODES.map(mode => pgLiteral(mode)).join(', ')})
      AND (relation = ANY(named) OR (roots OR wide) AND EXISTS (SELECT FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation AND ${CAPTURABLE}));
  ELSE
    PERFORM pg_logical_emit_message(true, ${prefix}, json_build_object('rewritten', t.oid::bigint)::text)
    FROM unnest(named) t(oid);
  END IF;
  PERFORM pg_logical_emit_message(true, ${prefix}, json_build_object(
    'tables', (SELECT json_agg(d.described) FROM (${describeSql(condition, options)}) d),
    'named', to_json(named::bigint[]),
    'locked', to_json(coalesce(locked, '{}')::bigint[]),
    'published', CASE WHEN wide THEN (SELECT coalesce(json_agg(c.oid::bigint), '[]') FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${CAPTURABLE} AND ${published}) END)::text);
  PERFORM pg_logical_emit_message(true, ${prefix}, '{}');
EXCEPTION WHEN OTHERS THEN
  RAISE WARNING 'freshet: a schema change was not announced (%): %', SQLSTATE, SQLERRM;
END $freshet$;
${dropTriggersSql(settings)}
${EVENTS.map(
  event => `CREATE EVENT TRIGGER ${triggerName(settings, event)} ON ${event} EXECUTE FUNCTION ${pgName(SCHEMA, name)}();
ALTER EVENT TRIGGER ${triggerName(settings, event)} ENABLE ALWAYS;`,
).join('\n')}`;
}

interface Server {
  readonly serverVersion: number;
  readonly role: string;
}

/** All of `triggerSql` or nothing, with the mark by which this release knows it again. */
function installSql(settings: Settings, server: Server): {sql: string; release: string} {
  const sql = triggerSql(settings, server);
  const release = createHash('sha256').update(sql).digest('hex');
  const name = `${pgName(SCHEMA, objectName(settings))}()`;
  return {
    sql: `BEGIN;\nSET LOCAL client_min_messages = warning;\n${sql}\nCOMMENT ON FUNCTION ${name} IS ${pgLiteral(release)};\nCOMMIT;`,
    release,
  };
}

const dropTriggersSql = (settings: Settings): string =>
  EVENTS.map(event => `DROP EVENT TRIGGER IF EXISTS ${triggerName(settings, event)};`).join('\n');

/** Removes what `triggerSql` made. */
export const removeTriggersSql = (settings: Settings): string =>
  `${dropTriggersSql(settings)}
DROP FUNCTION IF EXISTS ${pgName(SCHEMA, objectName(settings))}();`;

/** Are the function and all triggers there as this release makes them, and enabled? */
export const triggersInForceSql = (settings: Settings): string => `
  SELECT count(*) = ${EVENTS.length} AND bool_and(e.evtenabled = 'A') AS "inForce"
  FROM pg_event_trigger e JOIN pg_proc f ON f.oid = e.evtfoid JOIN pg_namespace n ON n.oid = f.pronamespace
  WHERE n.nspname = ${pgLiteral(SCHEMA)} AND f.proname = ${pgLiteral(objectName(settings))}`;

export interface Triggers {
  /** Are they there and enabled? */
  readonly inForce: boolean;
  /** As this release makes them for this role? */
  readonly current: boolean;
  /** May the role make them? Only a superuser can. */
  readonly mayMake: boolean;
  /** What makes them. */
  readonly sql: string;
}

/** What is there of the triggers. Reads only. */
export async function readTriggers(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
): Promise<Triggers> {
  const {rows} = await client.query<{
    inForce: boolean | null;
    superuser: boolean;
    role: string;
    release: string | null;
  }>(
    `SELECT *, current_user AS role, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       (SELECT obj_description(f.oid, 'pg_proc') FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace
        WHERE n.nspname = ${pgLiteral(SCHEMA)} AND f.proname = ${pgLiteral(objectName(settings))}) AS release
     FROM (${triggersInForceSql(settings)}) t`,
  );
  const {inForce, role, superuser: mayMake, release: found} = rows[0]!;
  const {sql, release} = installSql(settings, {serverVersion, role});
  return {inForce: inForce === true, current: found === release, mayMake, sql};
}

/**
 * Makes the triggers where they are wanted and the role may: a superuser alone can. True where they are in force.
 */
export async function ensureTriggers(
  client: ClientBase,
  settings: Settings,
  serverVersion: number,
): Promise<boolean> {
  if (settings.FRESHET_EVENT_TRIGGERS === 'off') {
    await removeTriggers(client, settings).catch(() => {}); // not ours to remove
    return false;
  }
  const {inForce, current, mayMake, sql} = await readTriggers(client, settings, serverVersion);
  if (!mayMake || (inForce && current)) return inForce;
  await client.query(sql);
  return true;
}

/**
 * Removes the function, its triggers, and their schema where nothing else is in it. False where there is none. Throws
 * `pg.permission` where another role made them.
 */
export async function removeTriggers(client: ClientBase, settings: Settings): Promise<boolean> {
  // By the catalog: whoever may not use the schema cannot look the function up by its name.
  const {rowCount} = await client.query(
    'SELECT FROM pg_proc f JOIN pg_namespace n ON n.oid = f.pronamespace WHERE n.nspname = $1 AND f.proname = $2',
    [SCHEMA, objectName(settings)],
  );
  if (rowCount === 0) return false;
  try {
    await client.query(
      `BEGIN; SET LOCAL client_min_messages = warning; ${removeTriggersSql(settings)} COMMIT`,
    );
  } catch (error) {
    await client.query('ROLLBACK');
    throw asSourceError(error);
  }
  // Other pipelines have their functions there.
  await client.query(`DROP SCHEMA IF EXISTS ${SCHEMA}`).catch(() => {});
  return true;
}
