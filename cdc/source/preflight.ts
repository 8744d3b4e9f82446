import type {ClientBase} from 'pg';
import {z} from 'zod';
import type {Settings} from '../settings/settings.ts';
import {type Problem, readable} from './table-problems.ts';
import {type CapturedTable, planTables} from './tables.ts';

export interface Preflight {
  readonly database: string;
  readonly serverVersion: number;
  readonly captured: readonly CapturedTable[];
  readonly problems: readonly Problem[];
  readonly createPublication: string | undefined;
  /** `synchronized_standby_slots`: no change is sent before these standbys have it. */
  readonly standbySlots: string;
}

const Server = z.object({
  version: z.coerce.number(),
  walLevel: z.string(),
  database: z.string(),
  encoding: z.string(),
  recovery: z.boolean(),
  replication: z.boolean(),
  freeSlots: z.coerce.number(),
  freeSenders: z.coerce.number(),
  slotPlugin: z.string().nullable(),
  slotDatabase: z.string().nullable(),
  mayCreate: z.boolean(),
  standbySlots: z.string(),
});
type Server = z.infer<typeof Server>;

const SERVER = `
  SELECT current_setting('server_version_num') AS version, current_setting('wal_level') AS "walLevel",
    current_database() AS database, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS recovery,
    (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS replication,
    current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots) AS "freeSlots",
    current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication) AS "freeSenders",
    (SELECT plugin FROM pg_replication_slots WHERE slot_name = $1) AS "slotPlugin",
    (SELECT database FROM pg_replication_slots WHERE slot_name = $1) AS "slotDatabase",
    has_database_privilege(current_database(), 'CREATE') AS "mayCreate",
    coalesce(current_setting('synchronized_standby_slots', true), '') AS "standbySlots"`;

const OLDEST = 140_000;
/** First version with failover slots. */
const HAS_FAILOVER = 170_000;

/** What the server must have: each row with the words and the SQL for when it has not. */
const CHECKS: readonly ((server: Server, settings: Settings) => Problem | false)[] = [
  s =>
    s.version < OLDEST && {
      message: `PostgreSQL ${Math.floor(s.version / 10_000)} is too old: 14 or later is needed`,
    },
  s =>
    s.walLevel !== 'logical' && {
      message: `wal_level is ${s.walLevel}; logical replication needs logical`,
      sql: "ALTER SYSTEM SET wal_level = 'logical'; -- then restart PostgreSQL",
    },
  s => s.recovery && {message: 'the server is a standby; Freshet follows a primary'},
  s =>
    s.encoding !== 'UTF8' && {
      message: `the database's encoding is ${s.encoding}; only UTF8 keeps every value as it is`,
    },
  s => !s.replication && {message: 'the role may not replicate', sql: 'ALTER ROLE <role> REPLICATION;'},
  s =>
    s.slotPlugin === null &&
    s.freeSlots < 1 && {
      message: 'all replication slots are taken',
      sql: 'ALTER SYSTEM SET max_replication_slots = 20; -- then restart PostgreSQL',
    },
  // One of them may be our own, of a connection that broke and that the server has not given up yet.
  s =>
    s.freeSenders < 1 && {
      message: 'all walsenders are taken',
      sql: 'ALTER SYSTEM SET max_wal_senders = 20; -- then restart PostgreSQL',
      onlyAtFirst: true,
    },
  (s, settings) =>
    s.slotPlugin !== null &&
    (s.slotPlugin !== 'pgoutput' || s.slotDatabase !== s.database) && {
      message: `slot ${settings.FRESHET_SLOT} exists for ${s.slotPlugin} in database ${s.slotDatabase}; set FRESHET_SLOT to another name`,
    },
  (s, settings) =>
    settings.FRESHET_SLOT_FAILOVER &&
    s.version < HAS_FAILOVER && {
      message: `FRESHET_SLOT_FAILOVER needs PostgreSQL 17 or later, and this is ${Math.floor(s.version / 10_000)}`,
    },
  // A server that was promoted a moment ago may have none yet.
  (s, settings) =>
    settings.FRESHET_SLOT_FAILOVER &&
    s.version >= HAS_FAILOVER &&
    s.standbySlots === '' && {
      message:
        'synchronized_standby_slots is empty: changes could be sent that a promoted standby does not have',
      sql: "ALTER SYSTEM SET synchronized_standby_slots = '<physical slot of the standby>'; SELECT pg_reload_conf();",
      onlyAtFirst: true,
    },
];

/** Judges server, role and tables. It changes nothing. */
export async function preflight(client: ClientBase, settings: Settings): Promise<Preflight> {
  const {rows} = await client.query(SERVER, [settings.FRESHET_SLOT]);
  const server = Server.parse(rows[0]);
  const plan = await planTables(client, settings, server.version);
  const problems = CHECKS.flatMap(check => check(server, settings) || []);
  if (plan.createPublication && !(server.mayCreate && plan.ownsAll)) {
    problems.push({
      message: `publication ${settings.FRESHET_PUBLICATION} does not exist, and the role may not create it`,
      sql: plan.createPublication,
    });
  }
  return {
    database: server.database,
    serverVersion: server.version,
    captured: plan.captured,
    problems: readable([...problems, ...plan.problems]),
    createPublication: plan.createPublication,
    standbySlots: server.standbySlots,
  };
}

/** Problems as lines, each with the SQL that mends it. */
export const problemLines = (problems: readonly Problem[]): string[] =>
  problems.flatMap(({message, sql}) => [`✗ ${message}`, ...(sql === undefined ? [] : [`    ${sql}`])]);
