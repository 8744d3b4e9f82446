import {execFile} from 'node:child_process';
import path from 'node:path';
import {promisify, stripVTControlCharacters} from 'node:util';
import test from 'ava';
import {quietLog} from '../test-support/quiet-log.ts';
import {snapshotProgress} from './progress.ts';

const START = {table: 'public.orders', rows: 0, bytes: 0, rowsBefore: 0, estimatedRows: 2000, done: false};
const END = {...START, rows: 2345, bytes: 3 << 20, done: true};

test('without a terminal: a log line at the beginning and at the end, not for each chunk', async t => {
  const program = `import {snapshotProgress} from ${JSON.stringify(path.join(import.meta.dirname, 'progress.ts'))};
    import {createLog} from ${JSON.stringify(path.join(import.meta.dirname, 'log.ts'))};
    const tell = snapshotProgress(createLog('info'));
    const start = ${JSON.stringify(START)};
    for (let rows = 0; rows < 100; rows++) tell({...start, rows});
    tell(${JSON.stringify(END)});`;
  const {stderr} = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program]);
  const lines = stderr.trimEnd().split('\n');
  t.true(lines.length >= 2 && lines.length < 100);
  t.like(JSON.parse(lines[0] ?? ''), {table: 'public.orders', rows: 0});
  t.regex(lines.at(-1) ?? '', /"public\.orders: 2,345 rows, 3\.0 MiB, done in [\d.]+ s"/);
});

test('on a terminal one line is written over, and left standing when the table is done', t => {
  const written: string[] = [];
  const log = quietLog();
  const terminal = Object.create(process.stderr, {
    isTTY: {value: true},
    write: {
      value: (text: string) => {
        written.push(text);
        return true;
      },
    },
  });
  const tell = snapshotProgress(log, terminal);
  tell({...START, rows: 500, bytes: 1 << 19});
  tell(END);
  t.is(written.length, 2);
  const lines = written.map(text => {
    t.true(text.startsWith('\r\x1b[K'));
    return stripVTControlCharacters(text).slice(1);
  });
  t.regex(lines[0] ?? '', /^public\.orders: 500 rows, 0\.5 MiB, [\d,]+ rows\/s, about [\d.]+ s left$/);
  t.regex(lines[1] ?? '', /^public\.orders: 2,345 rows, 3\.0 MiB, done in [\d.]+ s\n$/);
  t.deepEqual(log.entries, []);
});

test('what was read by a run before counts as rows, not as pace; where nobody knows how much there is, no time is told', t => {
  const written: string[] = [];
  const terminal = Object.create(process.stderr, {
    isTTY: {value: true},
    write: {value: (text: string) => written.push(text)},
  });
  const tell = snapshotProgress(quietLog(), terminal);
  tell({...START, rows: 1_000_000, rowsBefore: 1_000_000, estimatedRows: 2_000_000});
  tell({...START, table: 'public.new', rows: 500, estimatedRows: -1});
  t.regex(written[0] ?? '', /public\.orders: 1,000,000 rows, 0\.0 MiB, 0 rows\/s, time left unknown$/);
  t.regex(written[1] ?? '', /public\.new: 500 rows, 0\.0 MiB, [\d,]+ rows\/s, time left unknown$/);
});
