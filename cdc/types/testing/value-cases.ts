import type {TestFn} from 'ava';
import {clientConfig, withClient} from '../../source/postgres.ts';
import {pgLiteral} from '../../source/table-schema.ts';
import type {Shared} from '../../test-support/share-pipeline.ts';
import {captured, compare} from './compare.ts';

const STREAMED = 1000;

/**
 * SQL type, a literal of it, and the text of what ClickHouse shows; null is NULL. A reason is what the record of a
 * value without a place says.
 */
export type Value = readonly [type: string, literal: string | null, shown: string | null, reason?: RegExp];
export const lost =
  (reason: RegExp) =>
  (type: string, literal: string): Value => [type, literal, null, reason];

/** Sends each value by snapshot and by stream, in a row and a column of its own; both must be shown as given. */
export const valueCases =
  (test: TestFn, shared: Shared) =>
  (title: string, list: readonly Value[], ddl = ''): void => {
    const types = [...new Set(list.map(([type]) => type))];
    const row = ([type, literal]: Value, id: number): string =>
      `(${[id, ...types.map(own => (own === type && literal !== null ? `${pgLiteral(literal)}::${own}` : 'NULL'))].join(', ')})`;
    const insert = (firstId: number): string =>
      `INSERT INTO v VALUES ${list.map((value, i) => row(value, firstId + i)).join(', ')};`;
    const columns = types.map((type, i) => `c${i} ${type}`).join(', ');
    const corner = shared.corner(`${ddl} CREATE TABLE v (id int PRIMARY KEY, ${columns}); ${insert(0)}`);
    test(title, async t => {
      const {pg, ch, settings, schema, query, caughtUp} = await corner(t);
      await pg.query(insert(STREAMED));
      await caughtUp();
      const text = (type: string, i: number): string =>
        type.startsWith('bytea') ? `lower(hex(c${i}))` : `if(isNull(c${i}), NULL, toString(c${i}))`;
      const shown = await query(`SELECT id, [${types.map(text).join(', ')}] AS c FROM {an}.v ORDER BY id`);
      const wanted = [0, STREAMED].flatMap(firstId =>
        list.map(([type, , as], i) => ({id: firstId + i, c: types.map(own => (own === type ? as : null))})),
      );
      t.deepEqual(shown, wanted);
      const table = (await captured({settings})).find(({definition}) => definition.schema === schema)!;
      t.deepEqual((await compare({settings, ch}, table)).wrong, []);

      const source = await withClient(clientConfig(settings), client =>
        client.query<Record<string, string>>(
          `SELECT id, ${types.map((_, i) => `c${i}::text`).join(', ')} FROM ${schema}.v`,
        ),
      );
      const versions = await query('SELECT id, toString(_version) AS version FROM {cdc}.v FINAL');
      const recorded = await query(
        `SELECT toInt32(extract(key, '^\\\\{"id":(\\\\d+)\\\\}$')) AS id, column_name, value, toString(version) AS version, reason
       FROM {cdc}._rejects WHERE schema_name = '${schema}' AND table_name = 'v' ORDER BY id`,
      );
      const rejected = [0, STREAMED].flatMap(firstId =>
        list.flatMap(([type, , , reason], i) =>
          reason ? [{id: firstId + i, column: `c${types.indexOf(type)}`, reason}] : [],
        ),
      );
      t.deepEqual(
        recorded.map(({id, column_name, value, version}) => ({id, column_name, value, version})),
        rejected.map(({id, column}) => ({
          id,
          column_name: column,
          value: source.rows.find(found => Number(found.id) === id)![column],
          version: versions.find(found => found.id === id)!.version,
        })),
      );
      for (const [i, {reason}] of rejected.entries()) t.regex(String(recorded[i]?.reason), reason);
    });
  };
