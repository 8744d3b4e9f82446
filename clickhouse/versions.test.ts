import test from 'ava';
import {PipelineError} from '../cdc/failures.ts';
import {migrate} from './migrate.ts';
import {viewFile} from './testing/view-file.ts';
import {type TestWarehouse, testWarehouse} from './testing/warehouse.ts';
import {dropVersion, rollBack, viewVersions} from './versions.ts';

/** A read that meets two versions would have rows of both. */
const query = (text: string): string => `SELECT '${text}' AS a FROM numbers(50000)`;
const one = viewFile('one', 1, query('first'));
const two = viewFile('one', 2, query('second'));
const three = viewFile('one', 3, query('third'));
const reader = viewFile('reader', 1, 'SELECT a FROM {analytics}.one_v2', {requires: 'one_v2'});

const shown = async ({rows}: TestWarehouse): Promise<string[]> =>
  (await rows<{a: string}>('SELECT DISTINCT a FROM {analytics}.one')).map(({a}) => a);

test('a view goes to its next version and back while it is read: no read fails, and none meets both', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  await migrate({...warehouse, files: [one]});
  let over = false;
  const seen = new Set<string>();
  let reads = 0;
  const readers = Array.from({length: 3}, async () => {
    while (!over) {
      const found = await shown(warehouse);
      t.is(found.length, 1);
      seen.add(found[0]!);
      reads += 1;
    }
  });
  await migrate({...warehouse, files: [one, two]});
  for (let turn = 0; turn < 20; turn++) {
    t.is(await rollBack({...warehouse, files: [one, two]}, 'one'), 1);
    t.deepEqual(await shown(warehouse), ['first']);
    t.is(await rollBack({...warehouse, files: [one, two]}, 'one', 2), 2);
    t.deepEqual(await shown(warehouse), ['second']);
  }
  over = true;
  await Promise.all(readers);
  t.true(reads > 20);
  t.deepEqual([...seen].sort(), ['first', 'second']);
});

test('what was turned back stays, whatever is applied, until it is sent to the newest version', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const options = {...warehouse, files: [one, two, three]};
  await migrate({...warehouse, files: [one, two]});
  await rollBack({...warehouse, files: [one, two]}, 'one');
  await migrate(options);
  await migrate(options);
  t.deepEqual(await shown(warehouse), ['first']);
  t.deepEqual(await viewVersions(options), [{name: 'one', shows: 1, there: [1, 2, 3], isPinned: true}]);
  const error = await t.throwsAsync(rollBack(options, 'one'), {instanceOf: PipelineError});
  t.is(error.message, 'one has no version before 1; there are: 1, 2, 3');
  t.is(await rollBack(options, 'one', 3), 3);
  t.deepEqual(await viewVersions(options), [{name: 'one', shows: 3, there: [1, 2, 3], isPinned: false}]);
});

test('what was sent to a version stays there also where a newer one is still to come, or is away', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const options = {...warehouse, files: [one, two, three]};
  await migrate({...warehouse, files: [one, two]});
  t.is(await rollBack(options, 'one', 2), 2);
  await migrate(options);
  t.deepEqual(await shown(warehouse), ['second']);
  await dropVersion(options, 'one_v3');
  t.is(await rollBack(options, 'one', 2), 2);
  await migrate(options);
  t.deepEqual(await shown(warehouse), ['second']);
});

test('a version that somebody reads is not dropped', async t => {
  const warehouse = testWarehouse(t);
  if (!warehouse) return;
  const options = {...warehouse, files: [one, two, three, reader]};
  await migrate(options);
  const {analytics} = warehouse.databases;
  const refused = async (object: string) =>
    (await t.throwsAsync(dropVersion(options, object), {instanceOf: PipelineError})).message;
  t.is(await refused('one_v3'), `one_v3 is read by ${analytics}.one`);
  t.is(await refused('one_v2'), `one_v2 is read by ${analytics}.reader_v1`);
  t.is(await refused('one_v9'), 'one_v9 is no version of a view that is there');
  await dropVersion(options, 'one_v1');
  await migrate(options);
  t.deepEqual((await viewVersions(options))[0]?.there, [2, 3]);
});
