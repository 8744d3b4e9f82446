// Plain JavaScript, because scripts/bootstrap.mjs reads it before Node 24 and the packages are there.
import {spawnSync} from 'node:child_process';
import {existsSync, readFileSync} from 'node:fs';

const OLDEST_JAVA = 17;
const root = new URL('../../', import.meta.url);
export const kafkaPom = new URL('pom.xml', import.meta.url);

export function kafkaVersion() {
  const version = /<kafka\.version>([^<]+)</.exec(readFileSync(kafkaPom, 'utf8'))?.[1];
  if (!version) throw new Error('scripts/kafka/pom.xml names no kafka.version');
  return version;
}

export const kafkaHome = () => new URL(`.freshet/kafka-${kafkaVersion()}/`, root);
export const kafkaJars = () => new URL('lib/', kafkaHome());

export function findJava() {
  const {stderr, stdout, error} = spawnSync('java', ['-version'], {encoding: 'utf8'});
  const found = error ? null : /version "(?:1\.)?(\d+)/.exec(`${stderr}${stdout}`);
  if (!found) return {usable: false, found: `no Java ${OLDEST_JAVA} on PATH`};
  const major = Number(found[1]);
  return major >= OLDEST_JAVA
    ? {usable: true, found: `Java ${major}`}
    : {usable: false, found: `Java ${major} on PATH is older than ${OLDEST_JAVA}`};
}

export function kafkaMissing() {
  const java = findJava();
  if (!java.usable) return java.found;
  return existsSync(kafkaJars()) ? undefined : 'it is not installed: run node scripts/bootstrap.mjs';
}

export const kafkaInstalled = () => kafkaMissing() === undefined;
