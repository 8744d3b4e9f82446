import test from 'ava';
import {sizes} from './measure.ts';
import {percentile} from './percentile.ts';
import {failure, markdown, median, type Outcome, outcomesOf, ratio, summarise, tables} from './report.ts';
import {SYSTEMS} from './systems.ts';
import {WORKLOADS} from './workloads.ts';

test('the median is the middle value, or lies between the two in the middle', t => {
  t.is(median([3]), 3);
  t.is(median([30, 1, 2]), 2);
  t.is(median([4, 1, 3, 2]), 2.5);
});

test('a percentile is a value that was measured, and 1 is the highest', t => {
  const values = Array.from({length: 1000}, (_, i) => 1000 - i);
  t.is(percentile(values, 0.5), 500);
  t.is(percentile(values, 0.999), 999);
  t.is(percentile([7], 0.999), 7);
  t.is(percentile(values, 1), 1000);
});

test('a ratio needs both figures', t => {
  t.is(ratio(30_000, 15_000), '2.00');
  t.is(ratio(undefined, 15_000), '');
  t.is(ratio(30_000, undefined), '');
});

const OUTCOMES: readonly Outcome[] = [
  {workload: 'w', system: 'freshet-kafka', repeat: 1, values: {rows_per_s: 30_000, cpu_us_per_row: 20}},
  {workload: 'w', system: 'debezium', repeat: 1, values: {rows_per_s: 10_000, cpu_us_per_row: 90}},
  {workload: 'w', system: 'pg_recvlogical', repeat: 1, failed: 'it was away\nand so were others | all'},
  {
    workload: 'w',
    system: 'freshet-kafka',
    repeat: 2,
    values: {rows_per_s: 40_000.004, cpu_us_per_row_sink: 7},
  },
  {workload: 'latency-10', system: 'debezium', repeat: 1, values: {p50_ms: 12.3456, p99_ms: 40}},
];

test('each metric of a system on a workload is one row, with the value of every run', t => {
  const rows = summarise(OUTCOMES);
  t.deepEqual(rows[0], {
    workload: 'w',
    system: 'freshet-kafka',
    metric: 'rows_per_s',
    unit: 'rows/s',
    median: 35_000,
    runs: [30_000, 40_000],
  });
  t.deepEqual(
    rows.map(({system, metric, unit}) => `${system} ${metric} ${unit}`),
    [
      'freshet-kafka rows_per_s rows/s',
      'freshet-kafka cpu_us_per_row µs/row',
      'debezium rows_per_s rows/s',
      'debezium cpu_us_per_row µs/row',
      'freshet-kafka cpu_us_per_row_sink µs/row',
      'debezium p50_ms ms',
      'debezium p99_ms ms',
    ],
  );
});

test('rows give back the runs that they came of', t => {
  const rows = summarise(OUTCOMES);
  const sorted = (which: typeof rows) => which.map(row => JSON.stringify(row)).sort();
  t.deepEqual(sorted(summarise(outcomesOf(rows))), sorted(rows));
  t.deepEqual(
    outcomesOf(rows).map(({workload, system, repeat}) => `${workload} ${system} ${repeat}`),
    ['w freshet-kafka 1', 'w freshet-kafka 2', 'w debezium 1', 'latency-10 debezium 1'],
  );
});

test('a run that failed is no figure, and is named', t => {
  const failed = OUTCOMES.flatMap(({values, failed = '', ...line}) => (values ? [] : [{...line, failed}]));
  const report = {machine: {CPU: 'a'}, scale: 1, repeats: 2, at: 'now', rows: summarise(OUTCOMES), failed};
  const throughput = tables(report).get('Throughput');
  t.like(throughput?.[0], {system: 'freshet-kafka', 'rows/s': '35,000', '× Debezium': '3.50', '× limit': ''});
  t.like(throughput?.[2], {system: 'pg_recvlogical', 'rows/s': '', 'runs that failed': '1'});
  t.is(throughput?.length, 3);
  t.is(failure(failed[0]!), 'w, pg_recvlogical, repeat 1: it was away and so were others | all');
  const text = markdown(report, {workloads: [{name: 'w', about: 'rows'}], systems: []});
  t.regex(text, /\| workload \| system \| rows\/s \| × Debezium \| CPU µs\/row \| runs that failed \|/);
  t.regex(text, /\| w \| debezium \| 10,000 \| 1\.00 \| 90 \| {2}\|/);
  t.regex(text, /- w, pg_recvlogical, repeat 1: it was away/);
  t.notRegex(text, /undefined|NaN/);
});

test('every workload has systems, and systems that it names are there', t => {
  for (const {name, kind, systems = []} of WORKLOADS) {
    t.true(
      SYSTEMS.some(system => system.kinds.includes(kind)),
      name,
    );
    for (const other of systems)
      t.true(
        SYSTEMS.some(system => system.name === other && system.kinds.includes(kind)),
        other,
      );
  }
  t.is(new Set(WORKLOADS.map(({name}) => name)).size, WORKLOADS.length);
});

test('a system is as warm at a small scale as at a large one', t => {
  for (const workload of WORKLOADS.filter(({kind}) => kind === 'stream')) {
    const [small, large] = [sizes(workload, 0.001), sizes(workload, 1)];
    t.is(small.warm, large.warm);
    t.is(large.measured, workload.size);
    t.is(small.measured % 100, 0); // transactions of 4 changes, of 10 and of 100 are whole
  }
});
