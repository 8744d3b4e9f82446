import {execFile} from 'node:child_process';
import {mkdir, mkdtemp, readdir, rename, rm, symlink} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {promisify} from 'node:util';
import test from 'ava';

const run = promisify(execFile);
const root = path.dirname(import.meta.dirname);

test('the package starts from node_modules, where Node strips no types, and holds no tests', async t => {
  const dir = await mkdtemp(path.join(tmpdir(), 'freshet-package-'));
  t.teardown(() => rm(dir, {recursive: true}));
  const {stdout: packed} = await run(
    'npm',
    ['pack', '--json', '--loglevel=error', `--pack-destination=${dir}`],
    {cwd: root},
  );
  const file = /"filename":\s*"([^"]+)"/.exec(packed)?.[1] ?? '';
  await run('tar', ['xzf', path.join(dir, file), '-C', dir]);
  const modules = path.join(dir, 'node_modules');
  await mkdir(modules);
  await rename(path.join(dir, 'package'), path.join(modules, 'freshet'));
  for (const name of await readdir(path.join(root, 'node_modules'))) {
    if (name !== 'freshet') await symlink(path.join(root, 'node_modules', name), path.join(modules, name));
  }
  const {stdout, stderr} = await run(process.execPath, [
    path.join(modules, 'freshet', 'cdc', 'freshet.mjs'),
    '--help',
  ]);
  t.regex(stdout, /FRESHET_PG_URL/);
  t.is(stderr, '');
  const files = await readdir(path.join(modules, 'freshet'), {recursive: true});
  t.deepEqual(
    files.filter(name => /test/.test(name)),
    [],
  );
});
