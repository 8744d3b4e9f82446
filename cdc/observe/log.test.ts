import {execFile} from 'node:child_process';
import path from 'node:path';
import {promisify} from 'node:util';
import test from 'ava';
import {z} from 'zod';
import {withoutSecrets} from './log.ts';

const CLEANED: readonly (readonly [string, string])[] = [
  ['postgres://u:hush@h/db', 'postgres://u:***@h/db'],
  ['postgres://u:hu%20sh@h:5432/db?x=a@b', 'postgres://u:***@h:5432/db?x=a@b'],
  ['postgres://u:hu@sh@h/db', 'postgres://u:***@h/db'],
  ['postgres://:hush@h/db', 'postgres://:***@h/db'],
  ['from http://a:hush@b:8123, to https://c:hush@d/', 'from http://a:***@b:8123, to https://c:***@d/'],
  ['host=h password=hush user=u', 'host=h password=*** user=u'],
  ['http://127.0.0.1:8123/?user=a@b', 'http://127.0.0.1:8123/?user=a@b'],
  ['mail to a@b, 12:30', 'mail to a@b, 12:30'],
];

test('passwords are taken out of text, and nothing else', t => {
  for (const [text, clean] of CLEANED) t.is(withoutSecrets(text), clean);
});

const Line = z.strictObject({
  level: z.string(),
  time: z.iso.datetime(),
  url: z.string().optional(),
  rows: z.number().optional(),
  msg: z.string(),
});

test('a line is JSON on stderr, with no password in its words or its facts', async t => {
  const program = `import {createLog} from ${JSON.stringify(path.join(import.meta.dirname, 'log.ts'))};
    const log = createLog('info');
    log.info({url: 'http://u:hush@h/', rows: 3}, 'from postgres://u:hush@h/db');
    log.debug({}, 'not this one');
    log.error({}, 'the end');`;
  const {stdout, stderr} = await promisify(execFile)(process.execPath, [
    '--input-type=module',
    '-e',
    program,
  ]);
  t.is(stdout, '');
  const lines = stderr
    .trimEnd()
    .split('\n')
    .map(line => Line.parse(JSON.parse(line)));
  t.like(lines, [
    {level: 'info', url: 'http://u:***@h/', rows: 3, msg: 'from postgres://u:***@h/db'},
    {level: 'error', msg: 'the end'},
  ]);
  t.is(lines.length, 2);
});
