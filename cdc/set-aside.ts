import type {Context} from './context.ts';
import type {PipelineError} from './failures.ts';
import type {OutMessage} from './kafka/message.ts';
import {retrying} from './retry.ts';
import type {SchemaChanges} from './schema-changes.ts';
import {DeadLetters, type Letter} from './sink/dead-letters.ts';
import type {TableTracker} from './source/table-tracker.ts';

/** What is known of the source once changes can stream. */
export interface Source {
  readonly changes: SchemaChanges;
  readonly tracker: TableTracker;
}

/** One that is not captured any more, or is about to be read into another target, needs nothing. */
export async function setAside(
  {changes, tracker}: Source,
  name: string,
  generation: number,
  error: PipelineError,
): Promise<void> {
  const table = tracker.tables.find(({schema}) => schema.name === name);
  if (table?.schema.definition.generation === generation) await changes.park(table, error);
}

/** A message that no topic takes is a dead letter like one that ClickHouse refuses. */
export async function refuse(
  {client, settings, log, signal}: Context,
  source: Source,
  {table: {name, definition}, partition, key, value, headers}: OutMessage,
  error: PipelineError,
): Promise<void> {
  const letters = new DeadLetters(client, settings);
  const message = {offset: 0n, key, value, headers};
  const work = (): Promise<Letter> => letters.put(name, {partition, message, error});
  const {state} = await retrying('dead letters', work, {log, signal});
  log.error({code: error.code, hint: error.hint, table: name}, `${name}: a dead letter: ${error.message}`);
  if (state === 'open' && !letters.goesOn(name)) await setAside(source, name, definition.generation, error);
}
