import {
  documents,
  inserts,
  inTransactions,
  LINES,
  spread,
  TPCB,
  type Workload,
  wide,
  wideInserts,
} from './workload-tables.ts';
import {insertLinesSql, linesSql} from './world.ts';

export type {Named, Workload} from './workload-tables.ts';

const latency = (rate: number, seconds: number, systems?: Workload['systems']): Workload => ({
  name: `latency-${rate}`,
  about: `${rate.toLocaleString('en')} changes a second, in 100 transactions a second at most; each row carries the time just before its commit`,
  kind: 'latency',
  size: seconds,
  rate,
  ...(systems && {systems}),
  ...LINES,
  write: (first, last) => [
    insertLinesSql(first, last).replace(/timestamptz '2024[^,]*/, 'clock_timestamp()'),
  ],
});

/** Whose cost is looked at as work grows; `inserts-100` is where it starts. */
const FRESHET = ['freshet-kafka', 'freshet-direct'];
const MILLION = 1_000_000;

/** All workloads. A new one is a row here. */
export const WORKLOADS: readonly Workload[] = [
  ...[1, 10, 100, 10_000].map(
    (per): Workload => ({
      name: `inserts-${per}`,
      about: `new rows of 8 columns, about 170 bytes, ${per.toLocaleString('en')} a transaction`,
      kind: 'stream',
      size: MILLION,
      ...LINES,
      ...inserts(per),
    }),
  ),
  {
    name: 'updates-100',
    about: 'updates of such rows, 100 a transaction',
    kind: 'stream',
    size: MILLION,
    ...LINES,
    setup: linesSql,
    write: (first, last) => [
      inTransactions(
        first,
        last,
        100,
        'UPDATE lines SET quantity = quantity + 100 WHERE id BETWEEN lo AND hi',
      ),
    ],
  },
  {
    name: 'tpcb',
    about: 'three updates and an insert a transaction, on 4 tables',
    kind: 'stream',
    size: MILLION,
    ...TPCB,
  },
  {
    name: 'wide-60',
    about: 'new rows of 60 columns, 100 a transaction',
    kind: 'stream',
    size: 200_000,
    ...wideInserts(60),
  },
  {
    name: 'rows-1kb',
    about: 'new rows of 1 kB, 10 a transaction',
    kind: 'stream',
    size: 250_000,
    ...documents(1024),
  },
  {
    name: 'rows-16kb',
    about: 'new rows of 16 kB, 10 a transaction',
    kind: 'stream',
    size: 30_000,
    ...documents(16_384),
  },
  {
    name: 'snapshot-narrow',
    about: 'a table of 8 columns that is there before, from the start of the process to the last row',
    kind: 'snapshot',
    size: 5 * MILLION,
    ...LINES,
    setup: linesSql,
    write: () => [],
  },
  {
    name: 'snapshot-wide',
    about: 'the same with 60 columns',
    kind: 'snapshot',
    size: 500_000,
    ...wide(60),
    setup: count => `${wide(60).setup(count)}; ${wide(60).insert('1', String(count))}; ANALYZE wide`,
    write: () => [],
  },
  latency(0.2, 300, FRESHET),
  latency(100, 60, FRESHET),
  latency(1000, 60),
  latency(5000, 60, FRESHET),
  {
    name: 'growth-rows-10x',
    about: 'inserts-100 with a backlog ten times as long',
    kind: 'stream',
    size: 10 * MILLION,
    systems: FRESHET,
    ...LINES,
    ...inserts(100),
  },
  ...[5, 500].map(
    (count): Workload => ({
      name: `growth-tables-${count}`,
      about: `${count} small tables, 10 rows a transaction`,
      kind: 'stream',
      size: MILLION,
      systems: FRESHET,
      ...spread(count),
    }),
  ),
  ...[8, 80].map(
    (columns): Workload => ({
      name: `growth-columns-${columns}`,
      about: `rows of ${columns} columns, 100 a transaction`,
      kind: 'stream',
      size: 200_000,
      systems: FRESHET,
      ...wideInserts(columns),
    }),
  ),
  {
    name: 'growth-sinks-2',
    about: 'inserts-100 with two sinks',
    kind: 'stream',
    size: MILLION,
    systems: ['freshet-kafka'],
    sinks: 2,
    ...LINES,
    ...inserts(100),
  },
];
