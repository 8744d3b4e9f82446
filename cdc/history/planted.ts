import {cp, mkdtemp, readFile, rm, symlink, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';

/** A bug as it is planted: texts of a file, and what stands there instead. */
interface Planted {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

const ROOT = path.join(import.meta.dirname, '../..');

/** Bugs that histories must find. */
export const PLANTED: Readonly<Record<string, readonly Planted[]>> = {
  'version-by-arrival': [
    {
      file: 'cdc/kafka/change-decoder.ts',
      find: 'new Transaction({...message, epoch: this.#epoch});',
      replace: 'new Transaction({...message, epoch: this.#epoch, commitLsn: BigInt(Date.now()) as Lsn});',
    },
  ],
  'toast-as-null': [
    {
      file: 'cdc/source/row-encoder.ts',
      find: `        out.bytes(UNAVAILABLE);
        this.unchanged.push(column.name);`,
      replace: '        out.bytes(NULL);',
    },
  ],
  'truncate-any-version': [
    {
      file: 'cdc/sink/target.ts',
      find: `SELECT \${key}, toUInt128('\${horizon.version}'), 1,`,
      replace: `SELECT \${key}, greatest(_version + 1, toUInt128('\${horizon.version}')), 1,`,
    },
    {
      file: 'cdc/sink/target.ts',
      find: `WHERE _version < toUInt128('\${horizon.version}') AND _is_deleted = 0`,
      replace: 'WHERE _is_deleted = 0',
    },
  ],
  'truncate-dropped': [
    {
      file: 'cdc/sink/table-writer.ts',
      find: 'if (segment.horizon) {',
      replace: 'if (segment.horizon) return;\n  if (segment.horizon) {',
    },
  ],
  'schema-change-a-row-late': [
    {
      file: 'cdc/kafka/change-decoder.ts',
      find: 'readonly #routes = new Map<number, Route>();',
      replace: 'readonly #routes = new Map<number, Route>(); #late = new Map<number, Route>();',
    },
    {
      file: 'cdc/kafka/change-decoder.ts',
      find: 'this.#routes.clear();',
      replace: 'this.#late = new Map([...this.#late, ...this.#routes]); this.#routes.clear();',
    },
    {
      file: 'cdc/kafka/change-decoder.ts',
      find: 'const known = this.#routes.get(oid);',
      replace: `const late = this.#late.get(oid);
    if (late && this.#late.delete(oid)) return late;
    const known = this.#routes.get(oid);`,
    },
  ],
};

/** What of the project histories need. */
const COPIED = ['cdc', 'clickhouse', 'scripts', 'package.json'];

/** A copy of the tree with the bug in it. Throws where the text to replace is not there exactly once. */
export async function copyWithPlanted(name: string): Promise<{path: string; remove: () => Promise<void>}> {
  const patches = PLANTED[name];
  if (!patches) throw new Error(`no such bug: ${name}; there are ${Object.keys(PLANTED).join(', ')}`);
  const folder = await mkdtemp(path.join(tmpdir(), 'freshet-planted-'));
  const remove = () => rm(folder, {recursive: true, force: true});
  try {
    for (const part of COPIED) await cp(path.join(ROOT, part), path.join(folder, part), {recursive: true});
    await symlink(path.join(ROOT, 'node_modules'), path.join(folder, 'node_modules'));
    for (const {file, find, replace} of patches) {
      const target = path.join(folder, file);
      const [before, after, ...more] = (await readFile(target, 'utf8')).split(find);
      if (after === undefined || more.length > 0) {
        throw new Error(`${name}: ${file} does not hold this text exactly once:\n${find}`);
      }
      await writeFile(target, before + replace + after);
    }
    return {path: folder, remove};
  } catch (error) {
    await remove();
    throw error;
  }
}
