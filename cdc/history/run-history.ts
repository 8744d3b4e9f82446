import {setTimeout as sleep} from 'node:timers/promises';
import type {ClientBase} from 'pg';
import {PipelineError} from '../failures.ts';
import {allBehind, markPosition} from '../reconcile/position.ts';
import {quietLog} from '../test-support/quiet-log.ts';
import {differences} from './check.ts';
import {PipelineRunner} from './pipeline-runner.ts';
import type {Place, Target, World} from './place.ts';
import {rowChanges} from './row-changes.ts';
import {isSchemaStep, schemaChanges} from './schema-changes.ts';
import {Sessions} from './sessions.ts';
import type {History, Restart, RowStep, Step} from './steps.ts';
import {createSql} from './tables.ts';
import {TYPES_SQL} from './values.ts';

export interface Outcome {
  /** What is not as it must be; empty where all is well. */
  readonly differences: readonly string[];
  /** The history as SQL, a statement a line, with what came of it. */
  readonly lines: readonly string[];
  readonly operations: number;
  readonly schemaChanges: number;
  readonly errors: number;
  readonly restarts: number;
  readonly kills: number;
  readonly seconds: number;
}

const CAUGHT_UP_MS = 90_000;
const POLL_MS = 150;
/** How long a stop may wait before the transactions are ended that it may be waiting for. */
const HELD_UP_MS = 1_000;
/** How long a doomed process may live beyond its steps. */
const DOOM_MS = 1_500;

/** Runs a history in a world of its own, and compares in the end. Throws only what is no part of a history. */
export async function runHistory(place: Place, history: History): Promise<Outcome> {
  const startedAt = performance.now();
  const overrides = {
    FRESHET_TRANSPORT: history.transport,
    FRESHET_TOPIC_PARTITIONS: String(history.partitions),
    FRESHET_PG_STREAMING: history.streaming ? 'on' : 'off',
    FRESHET_FLUSH_MS: String(history.pace.flushMs),
    FRESHET_BATCH_BYTES: String(history.pace.batchBytes),
    FRESHET_KAFKA_SESSION_MS: '6000',
  };
  return place.withWorld(overrides, async world => {
    const sessions = await Sessions.open(world.url);
    const log = quietLog();
    const pipeline = new PipelineRunner(world.settings, world.environment, log, line => sessions.note(line));
    let found: string[];
    try {
      await begin(world, sessions, history);
      found = await Promise.race([play(place, world, sessions, pipeline, history), pipeline.failed]);
    } catch (error) {
      const told = log.entries.filter(({level}) => level !== 'debug').slice(-8);
      found = [
        `the pipeline or a check failed: ${error instanceof Error ? error.message : error}`,
        ...told.map(({level, message}) => `  ${level}: ${message}`),
      ];
    } finally {
      // First the sessions: a slot that is being made waits for their transactions, and the stop for the slot.
      await sessions.close();
      await pipeline.stop();
    }
    const {restarts, kills} = pipeline;
    const seconds = (performance.now() - startedAt) / 1000;
    return {differences: found, lines: sessions.lines, ...sessions.counts, restarts, kills, seconds};
  });
}

async function begin({pg}: World, sessions: Sessions, {tables, ...history}: History): Promise<void> {
  sessions.note(
    `-- ${history.transport}, ${history.partitions} partitions, flush ${history.pace.flushMs} ms, batches of ${history.pace.batchBytes} bytes${history.streaming ? ', open transactions are streamed' : ''}`,
  );
  await pg.query(`DO $do$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET logical_decoding_work_mem = ''64kB''', current_database());
  END $do$`);
  const statements = ['CREATE SCHEMA "Odd schema"', TYPES_SQL.trim(), ...tables.flatMap(createSql)];
  for (const sql of statements) {
    sessions.note(`${sql.replace(/;$/, '')};`);
    await pg.query(sql);
  }
}

async function play(
  place: Place,
  world: World,
  sessions: Sessions,
  pipeline: PipelineRunner,
  {parts}: History,
): Promise<string[]> {
  const wait = async (): Promise<void> => {
    await sessions.commitAll();
    await seen(place.streamed, world);
    sessions.note('-- all is seen');
  };
  for (const {restart, steps} of parts) {
    const restarting = new Restarting(pipeline, sessions, restart);
    await restarting.begin();
    for (const step of steps) {
      await restarting.step();
      if (step.does === 'wait until all is seen') {
        await restarting.end();
        await wait();
      } else if (step.does === 'wait a little') await sleep(step.salt % 120);
      else await change(sessions, step, world.settings.FRESHET_PUBLICATION);
    }
    await restarting.end();
  }
  await wait();
  return differences(world, place.streamed, place.fresh);
}

/** A table that is set aside may come back: it left the publication, and returned. */
async function seen({client}: Target, {settings, pg}: World): Promise<void> {
  const position = await markPosition(settings);
  const deadline = Date.now() + CAUGHT_UP_MS;
  for (;;) {
    const behind = await allBehind(client, settings, position).catch(error => {
      if (error instanceof PipelineError && error.code === 'ch.not_set_up') return undefined;
      throw error;
    });
    if (behind?.length === 0) return;
    if (Date.now() > deadline) {
      const states = behind?.map(({name, state, reason}) => `${name} (${state}${reason && `: ${reason}`})`);
      throw new Error(`not seen after ${CAUGHT_UP_MS / 1000} s: ${states?.join(', ')}\n${await waiting(pg)}`);
    }
    await sleep(POLL_MS);
  }
}

/** What goes on in the server: histories beside this one may hold it up, as a slot waits for all of them. */
async function waiting(client: ClientBase): Promise<string> {
  const {rows} = await client.query<{line: string}>(
    `SELECT concat_ws(' ', '  pid', pid, datname, application_name, state, wait_event, 'xid', backend_xid,
       'since', date_trunc('second', now() - state_change), 'behind', pg_blocking_pids(pid), left(query, 120)) AS line
     FROM pg_stat_activity
     WHERE pid <> pg_backend_pid() AND (xact_start < now() - interval '5 s' OR cardinality(pg_blocking_pids(pid)) > 0)`,
  );
  return rows.map(({line}) => line).join('\n');
}

export async function change(sessions: Sessions, step: Step, publication: string): Promise<void> {
  const {session} = step;
  switch (step.does) {
    case 'begin':
    case 'commit':
    case 'rollback':
    case 'savepoint':
    case 'rollback to':
    case 'release':
      return sessions.control(session, step.does);
  }
  const tables = await sessions.tables(session);
  const table = tables[step.table % Math.max(1, tables.length)];
  if (!table) return;
  const context = {
    table,
    tables,
    fresh: (count: number) => sessions.fresh(count),
    read: (sql: string) => sessions.read(session, sql),
  };
  if (!isSchemaStep(step.does)) {
    await sessions.execute(session, await rowChanges(step.does as RowStep, context, step), 'rows');
    return;
  }
  // Seldom with other transactions open: a table that they use cannot be changed.
  if (step.at % 4 !== 0) await sessions.commitOthers(session);
  await sessions.execute(session, await schemaChanges(step.does, {...context, publication}, step), 'schema');
}

/** One restart of the pipeline among the steps that come meanwhile. */
class Restarting {
  readonly #pipeline: PipelineRunner;
  readonly #sessions: Sessions;
  readonly #restart: Restart;
  #steps = 0;
  #downSince: number | undefined;

  constructor(pipeline: PipelineRunner, sessions: Sessions, restart: Restart) {
    this.#pipeline = pipeline;
    this.#sessions = sessions;
    this.#restart = restart;
  }

  async begin(): Promise<void> {
    const restart = this.#restart;
    if (restart.how === 'none') {
      this.#pipeline.start();
      return;
    }
    const stopping = this.#pipeline.stop();
    // It may wait for a look-up or for a slot, and those for what an open transaction holds.
    const late = setTimeout(() => this.#sessions.commitAll().catch(() => {}), HELD_UP_MS);
    if (await stopping) this.#sessions.note('-- the pipeline was stopped');
    clearTimeout(late);
    if (restart.how === 'kill') this.#pipeline.startDoomed(restart.place, restart.nth);
  }

  /** To be called before each step. */
  async step(): Promise<void> {
    const restart = this.#restart;
    if (restart.how === 'none' || this.#pipeline.isHere) return;
    this.#steps += 1;
    if (this.#pipeline.isChild) {
      if (restart.how === 'kill' && this.#steps > restart.after) await this.#pipeline.kill(DOOM_MS);
      return;
    }
    this.#downSince ??= this.#steps;
    if (this.#steps - this.#downSince >= restart.down) this.#start();
  }

  /** It runs afterwards. */
  async end(): Promise<void> {
    if (this.#pipeline.isHere) return;
    if (this.#pipeline.isChild) await this.#pipeline.kill(DOOM_MS);
    this.#start();
  }

  #start(): void {
    this.#pipeline.start();
    this.#sessions.note('-- the pipeline was started');
  }
}
