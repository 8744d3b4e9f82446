import fc from 'fast-check';
import type {Failpoint} from '../observe/failpoint.ts';
import {type TableSpec, tables} from './tables.ts';

/** What a session does, and how often beside the others. */
const ROW_STEPS = {
  insert: 22,
  update: 26,
  delete: 8,
  upsert: 8,
  'touch nothing': 3,
  'change keys': 6,
  'shift keys': 3,
  'swap keys': 3,
  'use a key again': 5,
  copy: 3,
  truncate: 1,
  'truncate several': 1,
  'truncate and insert': 1,
  begin: 16,
  commit: 12,
  rollback: 2,
  savepoint: 5,
  'rollback to': 3,
  release: 1,
} as const;

/** Changes of tables; what each means stands in schema-changes.ts. */
const SCHEMA_STEPS = {
  'add column': 4,
  'add column with default': 3,
  'add column with volatile default': 1,
  'drop column': 3,
  'rename column': 2,
  'widen a type': 2,
  'change a type': 2,
  'set not null': 2,
  'drop not null': 2,
  'rename and back': 1,
  'make anew': 1,
  'create table': 1,
  'add enum value': 2,
  'rename enum value': 1,
  'change the key': 1,
  'change the identity': 2,
  'leave the publication and return': 1,
} as const;

/** What the pipeline is waited for. */
const WAIT_STEPS = {'wait until all is seen': 1, 'wait a little': 3} as const;

export type RowStep = keyof typeof ROW_STEPS;
export type SchemaStep = keyof typeof SCHEMA_STEPS;
export type WaitStep = keyof typeof WAIT_STEPS;

/** The numbers are choices: what they choose from is found when the step is made, from the tables of that moment. */
export interface Step {
  readonly does: RowStep | SchemaStep | WaitStep;
  readonly session: number;
  readonly table: number;
  /** Where rows begin, in the order of their key. */
  readonly at: number;
  readonly count: number;
  readonly salt: number;
  /** Which columns. */
  readonly mask: number;
}

export type Restart =
  | {readonly how: 'none'}
  /** A stop in good order; the start comes so many steps later. */
  | {readonly how: 'stop'; readonly down: number}
  /** The process dies at this place when it is reached for the nth time, or so many steps later at the latest. */
  | {
      readonly how: 'kill';
      readonly place: Failpoint;
      readonly nth: number;
      readonly after: number;
      readonly down: number;
    };

export interface History {
  readonly transport: 'kafka' | 'direct';
  readonly partitions: number;
  /** Transactions come while they are still open, from PostgreSQL's least on: 64 kB. */
  readonly streaming: boolean;
  /** A small batch and a long flush together would be all that takes time. */
  readonly pace: {readonly flushMs: number; readonly batchBytes: number};
  readonly tables: readonly TableSpec[];
  /** The restart stands before the steps. */
  readonly parts: readonly {readonly restart: Restart; readonly steps: readonly Step[]}[];
}

const nat = (max: number): fc.Arbitrary<number> => fc.nat({max});
const weighted = <T extends string>(weights: Readonly<Record<T, number>>): fc.Arbitrary<T> =>
  fc.oneof(
    ...(Object.entries(weights) as [T, number][]).map(([does, weight]) => ({
      weight,
      arbitrary: fc.constant(does),
    })),
  );

const step = (does: fc.Arbitrary<Step['does']>): fc.Arbitrary<Step> =>
  fc.record({
    does,
    session: nat(2),
    table: nat(11),
    at: nat(200),
    count: fc.oneof(
      {weight: 60, arbitrary: nat(8)},
      {weight: 5, arbitrary: nat(80)},
      {weight: 1, arbitrary: fc.integer({min: 500, max: 900})},
    ),
    salt: nat(1_000_000),
    mask: nat(0xff_ff),
  });

/** Where a kill strikes, and how often the place is passed before. */
const PLACES: readonly {place: Failpoint; most: number; kafka?: true}[] = [
  {place: 'snapshot.chunk', most: 2},
  {place: 'kafka.before_send', most: 4, kafka: true},
  {place: 'kafka.in_send', most: 4, kafka: true},
  {place: 'kafka.after_send', most: 4, kafka: true},
  {place: 'sink.before_insert', most: 4},
  {place: 'sink.in_insert', most: 4},
  {place: 'sink.before_commit', most: 2, kafka: true},
  {place: 'sink.after_commit', most: 2, kafka: true},
  {place: 'capture.before_ack', most: 2},
  {place: 'schema.in_place', most: 2},
  {place: 'schema.read', most: 2},
  {place: 'schema.shown', most: 2},
];

const kill = (places: readonly Failpoint[]): fc.Arbitrary<Restart> =>
  fc.constantFrom(...PLACES.filter(({place}) => places.includes(place))).chain(({place, most}) =>
    fc.record({
      how: fc.constant('kill' as const),
      place: fc.constant(place),
      nth: fc.integer({min: 1, max: most}),
      after: nat(80),
      down: nat(20),
    }),
  );
const none: fc.Arbitrary<Restart> = fc.constant({how: 'none'});
const stop: fc.Arbitrary<Restart> = fc.record({how: fc.constant('stop' as const), down: nat(20)});

export interface HistoryOptions {
  readonly kafka: boolean;
  /** Are tables changed too? */
  readonly schemaChanges: boolean;
  /** How many steps a history has at most; on average it is half of that. */
  readonly mostSteps: number;
}

const PARTS = 4;

/** All histories. Everything a run does follows from the value, as far as the servers allow. */
export function histories({kafka, schemaChanges, mostSteps}: HistoryOptions): fc.Arbitrary<History> {
  const change = step(weighted(ROW_STEPS));
  const wait = step(weighted(WAIT_STEPS));
  const schema = step(weighted(SCHEMA_STEPS));
  const steps = fc.array(
    fc.oneof(
      {weight: 120, arbitrary: change},
      {weight: 2, arbitrary: wait},
      ...(schemaChanges ? [{weight: 2, arbitrary: schema}] : []),
    ),
    {maxLength: Math.ceil(mostSteps / PARTS), size: 'max'},
  );
  return fc
    .constantFrom(...(kafka ? (['kafka', 'direct'] as const) : (['direct'] as const)))
    .chain(transport => {
      const own = PLACES.filter(place => transport === 'kafka' || !place.kafka).map(({place}) => place);
      const first = fc.oneof({weight: 3, arbitrary: none}, {weight: 1, arbitrary: kill(['snapshot.chunk'])});
      const later = fc.oneof(
        {weight: 1, arbitrary: none},
        {weight: 4, arbitrary: stop},
        {weight: 4, arbitrary: kill(own.filter(place => place !== 'snapshot.chunk'))},
      );
      const part = (restart: fc.Arbitrary<Restart>) => fc.record({restart, steps});
      return fc.record({
        transport: fc.constant(transport),
        partitions: fc.integer({min: 1, max: 3}),
        pace: fc.constantFrom(
          {flushMs: 10, batchBytes: 1 << 16},
          {flushMs: 10, batchBytes: 1 << 20},
          {flushMs: 60, batchBytes: 1 << 18},
          {flushMs: 200, batchBytes: 1 << 20},
        ),
        tables,
        parts: fc.tuple(part(first), part(later), part(later), part(later)),
        streaming: fc.boolean(),
      });
    });
}
