import test from 'ava';
import fc from 'fast-check';
import {pgLiteral} from '../source/table-schema.ts';
import {startPipeline} from '../test-support/start-pipeline.ts';
import {captured, compare} from './testing/compare.ts';
import {createTable} from './testing/every-type.ts';
import {RANDOM_TYPES_SQL, randomColumns} from './testing/random-values.ts';

/** Of the values; printed, and given by hand to see them again. */
const SEED = Number(process.env.TEST_SEED ?? Date.now() % 1_000_000_007);
const ROWS = Number(process.env.TEST_ROWS ?? 150);
const STREAMED = 1_000_000;

/** A session of the shop may show values in any way; ours must not. */
const ODD_SETTINGS = {
  timezone: 'Asia/Kathmandu',
  datestyle: 'SQL, DMY',
  intervalstyle: 'postgres_verbose',
  bytea_output: 'escape',
  extra_float_digits: '-15',
};

test(`random values arrive as they are, by snapshot, stream and look-up, whatever a session's settings`, async t => {
  t.log(`TEST_SEED=${SEED} TEST_ROWS=${ROWS}`);
  const settings = Object.entries(ODD_SETTINGS).map(
    ([name, value], i) =>
      `EXECUTE format('ALTER ${i % 2 ? 'DATABASE %1$I' : 'ROLE %2$I IN DATABASE %1$I'} SET ${name} = %3$L', current_database(), current_user, '${value}');`,
  );
  const isArray = ([type]: readonly [string, unknown]): boolean => /\[\]|labels/.test(type);
  const columns = Object.entries(randomColumns());
  // Rows of the first go as COPY writes them, of the second by the encoder.
  const tables = [
    randomTable(
      'fuzz',
      columns.filter(column => !isArray(column)),
    ),
    randomTable('fuzz_arrays', columns.filter(isArray)),
  ];
  const insert = (firstId: number): string => tables.map(table => table.insert(firstId)).join('\n');
  const world = await startPipeline(
    t,
    `DO $$ BEGIN ${settings.join('\n')} END $$; ${RANDOM_TYPES_SQL}
     ${tables.map(({create}) => create).join('\n')} ${insert(0)}`,
  );
  await world.caughtUp();
  await world.pg.query(insert(STREAMED));
  await world.caughtUp();
  const schemas = await captured(world);
  const check = async (): Promise<void> => {
    for (const schema of schemas) {
      const {wrong, values} = await compare(world, schema);
      t.deepEqual(wrong.slice(0, 20), []);
      t.true(values > ROWS * (schema.columns.length - 2));
    }
  };
  await check();
  await world.pg.query('UPDATE fuzz SET touched = id; UPDATE fuzz_arrays SET touched = id');
  await world.caughtUp();
  await check();
  t.deepEqual(
    world.log.lines.filter(line => line.includes('a chunk goes by the encoder')),
    [],
  );
});

/** A table of these columns, and rows of random values for it. */
function randomTable(
  name: string,
  columns: readonly (readonly [type: string, fc.Arbitrary<string>])[],
): {create: string; insert: (firstId: number) => string} {
  const types = columns.map(([type]) => type);
  const values = columns.map(([, arbitrary]) =>
    fc.sample(fc.option(arbitrary, {freq: 20}), {seed: SEED, numRuns: ROWS}),
  );
  const rows = Array.from({length: ROWS}, (_, r) => values.map(column => column[r] ?? null));
  const row = (id: number, texts: readonly (string | null)[]): string =>
    `(${[id, ...texts.map((value, c) => (value === null ? 'NULL' : `${pgLiteral(value)}::${types[c]}`)), 'NULL'].join(', ')})`;
  return {
    create: createTable(name, {columns: types, rows: []}),
    insert: firstId =>
      `INSERT INTO ${name} VALUES ${rows.map((texts, r) => row(firstId + r, texts)).join(',\n')};`,
  };
}
