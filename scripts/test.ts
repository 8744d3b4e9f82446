// Runs the tests against real servers: node scripts/test.ts [arguments of ava]
// With FRESHET_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin they run on that PostgreSQL instead of the one from npm.
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {runAva} from './stack/ava.ts';
import {SKIPS_FILE, Skip} from './stack/skip.ts';
import {StackError} from './stack/stack.ts';
import {startTestServers, TEST_VARIABLES} from './stack/test-servers.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function main(): Promise<number> {
  let ava: ReturnType<typeof runAva> | null = null;
  let interrupted = false;
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      interrupted = true;
      ava?.child.kill(signal); // a second one is harmless: a terminal sends Ctrl-C to both
    });
  }
  const scratch = await mkdtemp(path.join(tmpdir(), 'freshet-skips-'));
  const skipsFile = path.join(scratch, 'skips');
  await writeFile(skipsFile, '');
  const servers = await startTestServers(process.env);
  try {
    console.log(`Servers for the tests: ${servers.from}`);
    if (interrupted) return 130;
    const inherited = Object.entries(process.env).filter(
      ([name]) => !TEST_VARIABLES.some(own => own === name),
    );
    const env = {
      NODE_COMPILE_CACHE: path.join(tmpdir(), 'freshet-compile-cache'),
      ...Object.fromEntries(inherited),
      ...servers.env,
      [SKIPS_FILE]: skipsFile,
    };
    ava = runAva(process.argv.slice(2), env);
    const {code, counts} = await ava.done;
    const skips = (await readFile(skipsFile, 'utf8')).split('\n').filter(Boolean);
    for (const line of skips) {
      const {title, reason} = Skip.parse(JSON.parse(line));
      console.log(`skipped: ${title}: ${reason}`);
    }
    // To AVA a test that was skipped by itself has passed.
    const passed = counts.passed - skips.length;
    const skipped = counts.skipped + skips.length;
    console.log(`${passed} passed, ${counts.failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
    return interrupted ? 130 : code;
  } finally {
    await servers.stop();
    await rm(scratch, {recursive: true, force: true});
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof StackError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
