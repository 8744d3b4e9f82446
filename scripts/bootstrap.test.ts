import {spawnSync} from 'node:child_process';
import {readFileSync} from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import test from 'ava';
import {z} from 'zod';

const root = fileURLToPath(new URL('../', import.meta.url));

function bootstrap(env: Record<string, string>) {
  const {stdout, stderr, status} = spawnSync(process.execPath, ['scripts/bootstrap.mjs'], {
    cwd: root,
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
