import {asDeletion, HEADER} from '../kafka/message.ts';
import type {Settings} from '../settings/settings.ts';
import {type ClickHouseClient, insertJson} from './clickhouse.ts';
import {
  type DeadLetters,
  type Letter,
  LetterState,
  letterPlace,
  letterTable,
  messageOf,
} from './dead-letters.ts';
import {nameOf, type Registry} from './registry.ts';
import {SegmentQueue} from './segments.ts';
import {applySegment} from './table-writer.ts';
import {insertStatement} from './target.ts';

export interface RetryContext {
  readonly client: ClickHouseClient;
  readonly settings: Settings;
  readonly letters: DeadLetters;
  readonly registry: Registry;
}

/**
 * Applies the message of an open letter at its own version, so that whatever is newer stays; closes the letter, and
 * gives as what. Throws what refuses the message.
 */
export async function retryLetter(context: RetryContext, lean: Letter): Promise<LetterState> {
  const {client, settings, letters, registry} = context;
  const name = letterTable(lean);
  const find = async (): Promise<Letter> => {
    const where = {table: name, place: letterPlace(lean), bytes: true};
    return (await letters.find(LetterState.options, where))[0] ?? lean;
  };
  const letter = await find();
  if (letter.state !== 'open') return letter.state;
  const {message, partition} = messageOf(letter);
  const queue = new SegmentQueue(Number.POSITIVE_INFINITY);
  queue.add(message, partition);
  const segment = queue.shift()!;
  const table = await registry.schema(segment.schemaId);
  const row = (await registry.tables()).find(candidate => nameOf(candidate) === name);
  const shown = row && row.schema_id !== '' ? await registry.schema(row.schema_id) : undefined;
  if (shown && shown.definition.generation > table.definition.generation) {
    await letters.close([letter], 'superseded');
    return 'superseded';
  }
  await applySegment({client, settings, letters, table}, segment);
  const now = await find();
  if (now.state === 'open') {
    await letters.close([now], 'retried');
    return 'retried';
  }
  // A TRUNCATE that was applied meanwhile may have been a moment too early to find this row.
  if (now.state === 'superseded' && message.key) {
    const technical = asDeletion(String(message.headers[HEADER.row]), now.superseded_by);
    const json = Buffer.from(`${message.key.toString('utf8').slice(0, -1)},${technical}\n`);
    await insertJson(client, insertStatement(settings, table), json);
  }
  return now.state;
}
