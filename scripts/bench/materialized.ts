import {z} from 'zod';
import {chLiteral, chName, command, rows} from '../../cdc/sink/clickhouse.ts';
import {arrivedIn, type Ground, until, type Working} from './ground.ts';

const READY_MS = 900_000;
const Count = z.object({n: z.coerce.number()});

/** How it is set; the report prints it. */
export const MATERIALIZED_SETTINGS = {
  // Its waits while nothing comes double up to ten seconds by default.
  materialized_postgresql_backoff_min_ms: 50,
  materialized_postgresql_backoff_max_ms: 200,
  materialized_postgresql_max_block_size: 65_536,
} as const;

/** ClickHouse's own database engine, which reads the slot by SQL. */
export async function startMaterialized(ground: Ground): Promise<Working> {
  const {name, world, workload} = ground;
  const {client, settings} = world;
  const database = `${name}_mpg`;
  const source = new URL(settings.FRESHET_PG_URL);
  const text = (value: string): string => chLiteral(decodeURIComponent(value));
  const set = {
    materialized_postgresql_tables_list: chLiteral(workload.tables.join(',')),
    ...MATERIALIZED_SETTINGS,
  };
  await client.command({
    query: `CREATE DATABASE ${chName(database)}
      ENGINE = MaterializedPostgreSQL(${chLiteral(source.host)}, ${chLiteral(name)}, ${text(source.username)}, ${text(source.password)})
      SETTINGS ${Object.entries(set)
        .map(([setting, value]) => `${setting} = ${value}`)
        .join(', ')}`,
    clickhouse_settings: {allow_experimental_database_materialized_postgresql: 1},
  });
  const reader = async (): Promise<number | undefined> => {
    const {rows: found} = await world.pg.query<{pid: number}>(
      `SELECT pid FROM pg_stat_activity
       WHERE datname = $1 AND pid <> pg_backend_pid() AND query LIKE '%pg\\_logical\\_slot\\_%'`,
      [name],
    );
    return found[0]?.pid;
  };
  const current = (table: string): string => chName(database, table);
  return {
    processes: {},
    failed: new Promise<never>(() => {}),
    ready: () =>
      until(
        async () => {
          const [found] = await rows(
            client,
            Count,
            `SELECT count() AS n FROM system.tables WHERE database = ${chLiteral(database)}`,
          );
          return (found?.n ?? 0) >= workload.tables.length && (await reader()) !== undefined;
        },
        READY_MS,
        'MaterializedPostgreSQL streams',
      ),
    reader,
    arrived: arrivedIn(ground, current),
    target: {current, rows: current, databases: [database]},
    stop: () => command(client, `DROP DATABASE IF EXISTS ${chName(database)} SYNC`),
  };
}
