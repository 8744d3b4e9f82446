import test from 'ava';
import {type FailureCode, PipelineError} from './failures.ts';
import {retrying} from './retry.ts';
import {quietLog} from './test-support/quiet-log.ts';

/** Fails with these codes, one after the other, then succeeds. */
function failing(...codes: FailureCode[]) {
  let calls = 0;
  return {
    calls: () => calls,
    work: async (): Promise<string> => {
      const code = codes[calls++];
      if (code) throw new PipelineError(code, `failure ${calls}`);
      return 'done';
    },
  };
}

test('an outage is outlived, and told: each failure once, and that it works again', async t => {
  const log = quietLog();
  const {work, calls} = failing('ch.unavailable', 'ch.overloaded');
  t.is(await retrying('insert', work, {log, signal: new AbortController().signal}), 'done');
  t.is(calls(), 3);
  t.like(log.entries, [
    {level: 'warn', message: 'insert: failure 1', facts: {code: 'ch.unavailable', attempt: 0}},
    {level: 'warn', message: 'insert: failure 2', facts: {code: 'ch.overloaded', attempt: 1}},
    {level: 'info', message: 'insert: works again', facts: {attempt: 2}},
  ]);
  t.is(log.entries.length, 3);
});

test('a success at once says nothing', async t => {
  const log = quietLog();
  await retrying('insert', failing().work, {log, signal: new AbortController().signal});
  t.deepEqual(log.entries, []);
});

for (const code of ['ch.rejected', 'ch.auth', 'pg.slot_lost'] as const) {
  test(`${code} is not tried again`, async t => {
    const {work, calls} = failing('ch.unavailable', code);
    const options = {log: quietLog(), signal: new AbortController().signal};
    const error = await t.throwsAsync(retrying('insert', work, options), {instanceOf: PipelineError});
    t.is(error?.code, code);
    t.is(calls(), 2);
  });
}

test('what nobody knows is not tried again', async t => {
  let calls = 0;
  const work = async (): Promise<never> => {
    calls += 1;
    throw new RangeError('off by one');
  };
  const options = {log: quietLog(), signal: new AbortController().signal};
  const error = await t.throwsAsync(retrying('insert', work, options), {instanceOf: PipelineError});
  t.is(error?.code, 'internal');
  t.is(calls, 1);
});

test('an abort ends the wait, with the last failure', async t => {
  const stop = new AbortController();
  const {work, calls} = failing('ch.unavailable', 'ch.unavailable');
  const running = retrying(
    'insert',
    async () => {
      setImmediate(() => stop.abort());
      return work();
    },
    {log: quietLog(), signal: stop.signal},
  );
  await t.throwsAsync(running, {message: 'failure 1'});
  t.is(calls(), 1);
});
