import {spawnSync} from 'node:child_process';
import {mkdtemp, rm, symlink, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import test from 'ava';
import {POSTGRES_BIN} from './test-servers.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
// The servers are named, so that none is started.
const servers = {
  TEST_PG_URL: 'none',
  TEST_CLICKHOUSE_URL: 'none',
  TEST_KAFKA_BROKERS: 'none',
  [POSTGRES_BIN]: '',
};

const SAMPLES = {
  'a-mixed': `
    import test from 'ava';
    import {skip} from ${JSON.stringify(path.join(root, 'scripts/stack/skip.ts'))};
    test('one passes', t => t.is(1, 1));
    test('another passes', t => { t.log('✔ not a test'); console.log('  ✔ not a test'); t.is(1, 1); });
    test('fails', t => t.is(1, 2, '✔ not a test'));
    test.skip('left out', t => t.is(1, 1));
    test('cannot run', t => skip(t, 'no such server'));`,
  'b-crash': `import test from 'ava'; test('never ends its file', () => process.exit(3));`,
} as const;

test('the closing line counts what passed, failed, was skipped and crashed', async t => {
  const dir = await mkdtemp(path.join(tmpdir(), 'freshet-ava-'));
  t.teardown(() => rm(dir, {recursive: true, force: true}));
  for (const [name, code] of Object.entries(SAMPLES))
    await writeFile(path.join(dir, `${name}.test.js`), code);
  await writeFile(path.join(dir, 'package.json'), '{"type": "module", "ava": {"files": ["*.test.js"]}}');
  await symlink(path.join(root, 'node_modules'), path.join(dir, 'node_modules'));
  const run = (...args: string[]) => {
    const {stdout, status} = spawnSync(process.execPath, [path.join(root, 'scripts/test.ts'), ...args], {
      cwd: dir,
      encoding: 'utf8',
      env: {...process.env, ...servers},
    });
    return {status, lines: stdout.trimEnd().split('\n').slice(-2)};
  };
  t.deepEqual(run('--match', '*passes'), {status: 0, lines: ['  2 tests passed', '2 passed, 0 failed']});
  t.is(run('--match', 'no such title').lines.at(-1), '0 passed, 1 failed');
  const all = run();
  t.is(all.status, 1);
  t.regex(all.lines[0] ?? '', /^skipped: cannot run: no such server$/);
  t.is(all.lines[1], '2 passed, 2 failed, 2 skipped');
});
