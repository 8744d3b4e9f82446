import test from 'ava';
import {FAILURES, type FailureCode, PipelineError} from './failures.ts';
import {registry} from './observe/metrics.ts';
import {supervise, together} from './supervisor.ts';
import {quietLog} from './test-support/quiet-log.ts';

const CODES = Object.keys(FAILURES) as FailureCode[];

const restarts = async (stage: string): Promise<number> => {
  const metric = await registry.getSingleMetric('freshet_restarts_total')?.get();
  return metric?.values.find(({labels}) => labels.stage === stage)?.value ?? 0;
};

for (const code of CODES) {
  const {reaction, hint} = FAILURES[code];
  const again = reaction === 'retry' || reaction === 'resync';
  test(`${code}: the stage ${again ? 'runs again' : 'ends'}`, async t => {
    const stop = new AbortController();
    const log = quietLog();
    let runs = 0;
    const running = supervise(
      `stage ${code}`,
      async () => {
        runs += 1;
        if (runs === 1) throw new PipelineError(code, 'by intention', {table: 'public.t'});
        stop.abort();
      },
      {log, signal: stop.signal},
    );
    if (again) await running;
    else t.is((await t.throwsAsync(running, {instanceOf: PipelineError}))?.code, code);
    t.is(runs, again ? 2 : 1);
    t.is(await restarts(`stage ${code}`), again ? 1 : 0);
    const [line] = log.entries;
    t.like(line, {
      level: reaction === 'retry' ? 'warn' : 'error',
      message: `stage ${code}: by intention`,
      facts: {code, hint, reaction, attempt: 0, table: 'public.t'},
    });
  });
}

test('what nobody knows halts, as a defect, and keeps its cause', async t => {
  const cause = new TypeError('x is not a function');
  let runs = 0;
  const error = await t.throwsAsync(
    supervise(
      'stage',
      async () => {
        runs += 1;
        throw cause;
      },
      {log: quietLog(), signal: new AbortController().signal},
    ),
    {instanceOf: PipelineError},
  );
  t.is(error?.code, 'internal');
  t.is(error?.cause, cause);
  t.is(runs, 1);
});

test('each failure in a row counts one attempt more', async t => {
  const stop = new AbortController();
  const log = quietLog();
  await supervise(
    'stage',
    async () => {
      if (log.entries.length === 3) stop.abort();
      else throw new PipelineError('kafka.unavailable', 'away');
    },
    {log, signal: stop.signal},
  );
  t.deepEqual(
    log.entries.map(({facts}) => facts.attempt),
    [0, 1, 2],
  );
});

test('an abort ends the wait before the next attempt, and hides what a stop breaks, but not a defect', async t => {
  const log = quietLog();
  const stopped = (code: FailureCode) => {
    const stop = new AbortController();
    return supervise(
      'stage',
      async () => {
        stop.abort();
        throw new PipelineError(code, 'broken off');
      },
      {log, signal: stop.signal},
    );
  };
  await stopped('pg.unavailable');
  t.deepEqual(log.entries, []);
  await t.throwsAsync(stopped('pg.protocol'), {message: 'broken off'});

  const stop = new AbortController();
  let runs = 0;
  const waiting = supervise(
    'stage',
    async () => {
      runs += 1;
      setImmediate(() => stop.abort());
      throw new PipelineError('pg.unavailable', 'away');
    },
    {log, signal: stop.signal},
  );
  await waiting;
  t.is(runs, 1);
});

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise(resolve => signal.addEventListener('abort', () => resolve(), {once: true}));

test('the first stage that fails stops the others, which end in their own time; its failure is thrown', async t => {
  const done: string[] = [];
  const failure = new PipelineError('pg.protocol', 'first');
  const error = await t.throwsAsync(
    together(
      [
        async signal => {
          await untilAborted(signal);
          await new Promise(setImmediate);
          done.push('sink');
          throw new Error('second');
        },
        async () => {
          throw failure;
        },
      ],
      new AbortController().signal,
    ),
  );
  t.is(error, failure);
  t.deepEqual(done, ['sink']);
});

test('a stop from outside reaches all stages, and is no failure', async t => {
  const stop = new AbortController();
  let ended = 0;
  const stage = async (signal: AbortSignal): Promise<void> => {
    await untilAborted(signal);
    ended += 1;
  };
  const running = together([stage, stage], stop.signal);
  stop.abort();
  await running;
  t.is(ended, 2);
});
