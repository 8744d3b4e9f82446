import test from 'ava';
import {copyWithPlanted, PLANTED} from './planted.ts';

test('every bug that histories must find can be planted in the tree as it is', async t => {
  for (const name of Object.keys(PLANTED)) {
    await t.notThrowsAsync(async () => (await copyWithPlanted(name)).remove(), name);
  }
  await t.throwsAsync(() => copyWithPlanted('nothing'), {message: /no such bug/});
});
