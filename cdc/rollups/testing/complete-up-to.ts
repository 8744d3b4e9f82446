import type {World} from '../../test-support/start-pipeline.ts';

/** The time by PostgreSQL's clock, µs. */
export async function sourceMicros({pg}: World): Promise<bigint> {
  const {rows} = await pg.query<{micros: string}>(
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS micros',
  );
  return BigInt(rows[0]!.micros);
}

/** Up to when all that was committed is shown, µs: of a table, or of the metrics over all of them. 0 where that is not known. */
export async function completeUpTo({query}: World, name = 'metrics'): Promise<bigint> {
  const [row] = await query(
    `SELECT toString(ifNull(toUnixTimestamp64Micro(complete_up_to), 0)) AS micros FROM {an}.data_freshness WHERE table_name = '${name}'`,
  );
  return BigInt(String(row?.micros ?? 0));
}
