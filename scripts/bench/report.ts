import {z} from 'zod';
import type {Values} from './stages.ts';

/** What came of one run: its values, or why it failed. */
export interface Outcome {
  readonly workload: string;
  readonly system: string;
  readonly repeat: number;
  readonly values?: Values;
  readonly failed?: string;
}

/** One figure: the median of its runs. */
const Row = z.object({
  workload: z.string(),
  system: z.string(),
  metric: z.string(),
  unit: z.string(),
  median: z.number(),
  runs: z.array(z.number()).readonly(),
});
export type Row = Readonly<z.infer<typeof Row>>;

/** What `latest.json` holds. */
export const Report = z.object({
  machine: z.record(z.string(), z.string()),
  scale: z.number(),
  repeats: z.number(),
  at: z.string(),
  rows: z.array(Row).readonly(),
  failed: z
    .array(
      z.object({
        workload: z.string(),
        system: z.string(),
        repeat: z.number(),
        failed: z.string().default(''),
      }),
    )
    .readonly(),
});
export type Report = Readonly<z.infer<typeof Report>>;

/** The middle of the values; between the two in the middle of an even number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
}

/** Metrics by how their names begin. */
const UNITS: readonly (readonly [string, string])[] = [
  ['rows_per_s', 'rows/s'],
  ['cpu_us_per_row', 'µs/row'],
  ['rss_mb', 'MiB'],
  ['bytes_per_row', 'bytes/row'],
  ['p', 'ms'],
];
const unitOf = (metric: string): string => UNITS.find(([start]) => metric.startsWith(start))?.[1] ?? '';

const rounded = (value: number): number => Number(value.toPrecision(5));

/** A row for each metric of each system on each workload, in the order of the runs. */
export function summarise(outcomes: readonly Outcome[]): Row[] {
  const groups = new Map<string, {workload: string; system: string; metric: string; runs: number[]}>();
  for (const {workload, system, values = {}} of outcomes)
    for (const [metric, value] of Object.entries(values)) {
      const key = [workload, system, metric].join('\t');
      const group = groups.get(key) ?? {workload, system, metric, runs: []};
      groups.set(key, group);
      group.runs.push(rounded(value));
    }
  return [...groups.values()].map(({workload, system, metric, runs}) => ({
    workload,
    system,
    metric,
    unit: unitOf(metric),
    median: rounded(median(runs)),
    runs,
  }));
}

/** The runs that rows came of: what `summarise` makes the same rows of. Those of one system are told apart by their order. */
export function outcomesOf(rows: readonly Row[]): Outcome[] {
  const outcomes = new Map<string, Outcome & {values: Record<string, number>}>();
  for (const {workload, system, metric, runs} of rows)
    for (const [i, value] of runs.entries()) {
      const key = [workload, system, i].join('\t');
      const outcome = outcomes.get(key) ?? {workload, system, repeat: i + 1, values: {}};
      outcomes.set(key, outcome);
      outcome.values[metric] = value;
    }
  return [...outcomes.values()];
}

/** What others are compared with, and in which way. */
const RATIOS = [
  {title: '× Debezium', to: ['debezium']},
  {title: '× limit', to: ['pg_recvlogical', 'copy-insert']},
] as const;

/** In the order of the data's way. */
const STAGES = [
  ...['walsender', 'postgres'],
  ...['capture', 'freshet', 'debezium', 'client', 'copy'],
  ...['broker', 'sink', 'clickhouse'],
];

/** How many times as fast; '' where there is nothing to compare with. */
export function ratio(value: number | undefined, to: number | undefined): string {
  return value === undefined || !to ? '' : (value / to).toFixed(2);
}

export const number = (value: number | undefined): string =>
  value === undefined
    ? ''
    : value.toLocaleString('en', {maximumFractionDigits: value >= 100 ? 0 : value >= 10 ? 1 : 2});

type Cells = Readonly<Record<string, string>>;

/** The tables of a report, by title: a line for each system on each workload. */
export function tables({rows, failed}: Pick<Report, 'rows' | 'failed'>): Map<string, Cells[]> {
  const value = (workload: string, system: string, metric: string): number | undefined =>
    rows.find(row => row.workload === workload && row.system === system && row.metric === metric)?.median;
  const pairs = [
    ...new Map(
      [...rows, ...failed].map(({workload, system}) => [`${workload}\t${system}`, {workload, system}]),
    ).values(),
  ].sort((a, b) => order(a.workload) - order(b.workload));
  function order(workload: string): number {
    return [...rows, ...failed].findIndex(row => row.workload === workload);
  }
  const failures = (workload: string, system: string): string => {
    const count = failed.filter(one => one.workload === workload && one.system === system).length;
    return count > 0 ? String(count) : '';
  };
  const lines = (of: (workload: string, system: string) => Cells | undefined): Cells[] =>
    pairs.flatMap(({workload, system}) => {
      const cells = of(workload, system);
      return cells ? [{workload, system, ...cells, 'runs that failed': failures(workload, system)}] : [];
    });
  const isLatency = (workload: string): boolean => workload.startsWith('latency-');
  const stages = (prefix: string): string[] =>
    STAGES.filter(stage => rows.some(({metric}) => metric === `${prefix}${stage}`));
  return new Map([
    [
      'Throughput',
      lines((workload, system) =>
        isLatency(workload)
          ? undefined
          : {
              'rows/s': number(value(workload, system, 'rows_per_s')),
              ...Object.fromEntries(
                RATIOS.map(({title, to}) => [
                  title,
                  ratio(
                    value(workload, system, 'rows_per_s'),
                    to.map(other => value(workload, other, 'rows_per_s')).find(found => found !== undefined),
                  ),
                ]),
              ),
              'CPU µs/row': number(value(workload, system, 'cpu_us_per_row')),
              'own memory MiB': number(value(workload, system, 'rss_mb')),
              'Kafka bytes/row': number(value(workload, system, 'bytes_per_row_kafka')),
              'ClickHouse bytes/row': number(value(workload, system, 'bytes_per_row_clickhouse')),
            },
      ),
    ],
    [
      'Latency, from commit to visible, in ms',
      lines((workload, system) =>
        isLatency(workload)
          ? {
              ...Object.fromEntries(
                ['p50', 'p95', 'p99', 'p999'].map(name => [
                  name,
                  number(value(workload, system, `${name}_ms`)),
                ]),
              ),
              'p95 × Debezium': ratio(
                value(workload, system, 'p95_ms'),
                value(workload, 'debezium', 'p95_ms'),
              ),
              'own memory MiB': number(value(workload, system, 'rss_mb')),
            }
          : undefined,
      ),
    ],
    [
      'Processor time by stage, µs a row',
      lines((workload, system) =>
        Object.fromEntries(
          stages('cpu_us_per_row_').map(stage => [
            stage,
            number(value(workload, system, `cpu_us_per_row_${stage}`)),
          ]),
        ),
      ),
    ],
    [
      'Most memory by stage, MiB',
      lines((workload, system) =>
        Object.fromEntries(
          stages('rss_mb_').map(stage => [stage, number(value(workload, system, `rss_mb_${stage}`))]),
        ),
      ),
    ],
  ]);
}

/** The report as Markdown. `about` says what each workload and each system is. */
export function markdown(
  report: Report,
  about: {readonly workloads: readonly Named[]; readonly systems: readonly Named[]},
): string {
  const listed = (which: readonly Named[]): string =>
    which.map(({name, about: text}) => `- \`${name}\`: ${text}`).join('\n');
  const {machine, at, scale, repeats, failed} = report;
  return `# The benchmark, as last run

\`npm run bench\` at ${at}, scale ${scale}, each run ${repeats} times, systems in turn; figures are medians.
[How it measures](../benchmark.md), and what not to read into it. The same as JSON: [latest.json](latest.json).

${Object.entries(machine)
  .map(([name, value]) => `- ${name}: ${value}`)
  .join('\n')}

${[...tables(report)]
  .filter(([, lines]) => lines.length > 0)
  .map(([title, lines]) => `## ${title}\n\n${markdownTable(lines)}`)
  .join('\n\n')}
${failed.length > 0 ? `\n## Runs that failed\n\n${failed.map(line => `- ${failure(line)}`).join('\n')}\n` : ''}
## Systems

${listed(about.systems)}

## Workloads

${listed(about.workloads)}
`;
}

interface Named {
  readonly name: string;
  readonly about: string;
}

/** One line for a run that failed. */
export const failure = ({workload, system, repeat, failed}: Report['failed'][number]): string =>
  `${workload}, ${system}, repeat ${repeat}: ${failed.replaceAll(/\s+/g, ' ').slice(0, 300)}`;

function markdownTable(lines: readonly Cells[]): string {
  const names = [...new Set(lines.flatMap(Object.keys))].filter(name =>
    lines.some(line => (line[name] ?? '') !== ''),
  );
  const row = (cells: readonly string[]): string =>
    `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [
    row(names),
    `|${names.map(name => (['workload', 'system'].includes(name) ? '---|' : '---:|')).join('')}`,
    ...lines.map(line => row(names.map(name => line[name] ?? ''))),
  ].join('\n');
}
