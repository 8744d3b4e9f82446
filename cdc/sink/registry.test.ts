import test from 'ava';
import {startPipeline} from '../test-support/start-pipeline.ts';
import {Registry} from './registry.ts';

test('D2 definitions come in the order of their versions, however many digits those have', async t => {
  const {ch, settings, caughtUp} = await startPipeline(t, 'CREATE TABLE t (id int PRIMARY KEY)');
  await caughtUp();
  const registry = new Registry(ch, settings);
  const table = (await registry.shownTables())[0]!;
  const sinces = [9n, 10n, 99n, 100n, 2n ** 120n];
  await registry.saveHistory(
    sinces
      .toReversed()
      .map(since => ({since, table, kind: 'in place' as const, change: `since ${since}`, views: []})),
  );
  const entries = (await registry.history()).byOid.get(table.oid)!;
  const found = entries.map(({since}) => since);
  t.deepEqual(
    found,
    found.toSorted((a, b) => (a < b ? -1 : 1)),
  );
  t.true(sinces.every(since => found.includes(since)));
});
