#!/usr/bin/env node
// The command of the installed package. Two things stand between it and main.ts: the Node that runs it may be older
// than 24, and Node does not strip types below node_modules.
import {spawn} from 'node:child_process';
import {readFileSync} from 'node:fs';
import * as nodeModule from 'node:module';
import path from 'node:path';

const NEEDED = 24;

if (Number(process.versions.node.split('.')[0]) < NEEDED) {
  // The package `node`, which is a dependency, brings the right one.
  const packaged = nodeModule.createRequire(import.meta.url).resolve('node/package.json');
  const node = path.join(path.dirname(packaged), 'bin', 'node');
  const child = spawn(node, [import.meta.filename ?? process.argv[1], ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => {
    process.exitCode = code ?? (signal === 'SIGINT' ? 130 : 1);
  });
} else {
  // It is the same code by which Node runs .ts files elsewhere; only calling it directly is called experimental.
  const emitWarning = process.emitWarning;
  process.emitWarning = (warning, ...more) => {
    if (!String(warning).includes('stripTypeScriptTypes')) emitWarning.call(process, warning, ...more);
  };
  const load = (url, context, next) =>
    url.endsWith('.ts')
      ? {
          format: 'module',
          source: nodeModule.stripTypeScriptTypes(readFileSync(new URL(url), 'utf8')),
          shortCircuit: true,
        }
      : next(url, context);
  nodeModule.registerHooks({load});
  await import('./main.ts');
}
