// The body of the ClickHouse process: one call into the library, which returns when the server ends.
import {existsSync} from 'node:fs';
import {createRequire} from 'node:module';
import path from 'node:path';
import ffi from 'ffi-rs';

const {DataType, load, open} = ffi;
const require = createRequire(createRequire(import.meta.url).resolve('chdb'));
const suffix = process.platform === 'linux' ? '-gnu' : '';
const home = path.dirname(
  require.resolve(`@chdb/lib-${process.platform}-${process.arch}${suffix}/package.json`),
);
const library = ['libchdb.so', 'libchdb.dylib'].map(name => path.join(home, name)).find(existsSync);
if (!library) throw new Error(`no libchdb in ${home}`);

open({library: 'chdb', path: library});
const args = ['clickhouse-local', ...process.argv.slice(2)];
load({
  library: 'chdb',
  funcName: 'chdb_query_cmdline',
  retType: DataType.I64,
  paramsType: [DataType.I32, DataType.StringArray],
  paramsValue: [args.length, args],
});
process.exit(); // the library's threads would keep the process
