import test from 'ava';
import {makeWorld} from '../../cdc/test-support/start-pipeline.ts';
import {WORKLOADS} from './workloads.ts';

const COUNT = 100;
const itself = (table: string): string => table;

test('every workload’s SQL runs, and what tells that all is there changes with what is written', async t => {
  const {pg} = await makeWorld(t, '');
  const ask = async (sql: string): Promise<string> => JSON.stringify((await pg.query(sql)).rows);
  for (const {name, kind, setup, write, tables, tail, whole} of WORKLOADS) {
    await pg.query('DROP SCHEMA public CASCADE; CREATE SCHEMA public');
    await pg.query(setup(COUNT));
    const {rows: made} = await pg.query<{n: string}>(
      "SELECT count(*) AS n FROM pg_tables WHERE schemaname = 'public'",
    );
    t.is(Number(made[0]!.n), tables.length, name);
    const answers = async (last: number): Promise<string[]> => [
      await ask(tail(last, itself)),
      await ask(whole(itself)),
    ];
    if (kind === 'snapshot') {
      t.regex((await answers(COUNT))[1]!, /"n":"100"/, name);
      continue;
    }
    const [before, whole0] = await answers(COUNT);
    for (const statement of write(1, COUNT / 2)) await pg.query(statement);
    const [between, whole1] = await answers(COUNT);
    for (const statement of write(COUNT / 2 + 1, COUNT)) await pg.query(statement);
    const [after, whole2] = await answers(COUNT);
    t.is(new Set([whole0, whole1, whole2]).size, 3, name);
    t.not(between, after, name); // half of the work is not taken for all of it
    t.not(before, after, name);
  }
});

test('rows whose latency is measured carry the time at which they were written', async t => {
  const {pg} = await makeWorld(t, '');
  const {setup, write} = WORKLOADS.find(({kind}) => kind === 'latency')!;
  await pg.query(setup(1));
  const {rows: then} = await pg.query<{now: Date}>('SELECT clock_timestamp() AS now');
  for (const statement of write(1, 3)) await pg.query(statement);
  const {rows} = await pg.query<{n: string}>('SELECT count(*) AS n FROM lines WHERE ordered_at >= $1', [
    then[0]!.now,
  ]);
  t.is(Number(rows[0]!.n), 3);
});
