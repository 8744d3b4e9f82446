import {asPipelineError} from '../failures.ts';
import {oneLine} from '../observe/one-line.ts';
import {textTable} from '../observe/text-table.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';
import {DeadLetters, type Letter, letterTable, shortPlace} from '../sink/dead-letters.ts';
import {isSetAsideBySink, nameOf, Registry} from '../sink/registry.ts';
import {retryLetter} from '../sink/retry-letter.ts';
import {nameMatcher} from '../source/catalog.ts';
import {commitLsnOf, formatLsn} from '../source/lsn.ts';
import {resync} from './resync.ts';

interface Which {
  readonly patterns: readonly string[];
  readonly places?: readonly string[];
  /** Also parked tables that have no letter. */
  readonly parked?: boolean;
}

interface Chosen {
  readonly letters: DeadLetters;
  readonly registry: Registry;
  /** Tables that match, with those of their open letters that match. */
  readonly tables: ReadonlyMap<string, readonly Letter[]>;
}

/** Prints the open letters of all tables, or of those that match. 0 where there is none, otherwise 1. */
export async function listDeadLetters(settings: Settings, patterns: readonly string[]): Promise<number> {
  return withLetters(settings, {patterns: patterns.length > 0 ? patterns : ['**']}, async ({tables}) => {
    const found = [...tables.values()].flat();
    if (found.length === 0) {
      console.log('no open dead letters');
      return 0;
    }
    const lines = found.map(letter => ({
      table: letterTable(letter),
      place: shortPlace(letter),
      key: letter.key,
      LSN: letter.version === '0' ? '' : formatLsn(commitLsnOf(BigInt(letter.version))),
      'in dead-letter topic': letter.dead_letter_offset === '-1' ? '' : letter.dead_letter_offset,
      since: new Date(Number(letter.at) / 1000).toISOString().slice(0, 19).replace('T', ' '),
      code: letter.code,
      reason: oneLine(letter.reason),
    }));
    console.log(textTable(lines));
    return 1;
  });
}

/**
 * Applies open letters, each at its own version, and has tables that are parked go on. 1 where one is refused again, or
 * a table that must be read again cannot be.
 */
export async function retryDeadLetters(
  settings: Settings,
  patterns: readonly string[],
  places: readonly string[],
): Promise<number> {
  return settle(settings, {patterns, places, parked: true}, async ({letters, registry}, letter, client) => {
    const state = await retryLetter({client, settings, letters, registry}, letter);
    return state === 'superseded' ? 'was superseded: the table was read since' : 'was applied';
  });
}

/** Closes open letters without applying them; a table that is parked at one goes on behind it. */
export async function dropDeadLetters(
  settings: Settings,
  patterns: readonly string[],
  places: readonly string[],
): Promise<number> {
  return settle(settings, {patterns, places}, async ({letters}, letter) => {
    await letters.close([letter], 'dropped');
    return 'was dropped';
  });
}

/** Closes letters one by one; tables whose letters are all closed go on. */
async function settle(
  settings: Settings,
  which: Which,
  close: (chosen: Chosen, letter: Letter, client: ReturnType<typeof clickhouseClient>) => Promise<string>,
): Promise<number> {
  return withLetters(settings, which, async (chosen, client) => {
    const {tables, letters, registry} = chosen;
    if (tables.size === 0) {
      console.error(
        `✗ no such table or letter: ${oneLine([...which.patterns, ...(which.places ?? [])].join(', '))}`,
      );
      return 1;
    }
    let code = 0;
    for (const [name, own] of tables) {
      for (const letter of own) {
        const what = `${name} ${shortPlace(letter)}`;
        try {
          console.log(oneLine(`✓ ${what} ${await close(chosen, letter, client)}`));
        } catch (thrown) {
          const error = asPipelineError(thrown);
          if (error.reaction !== 'park' && error.code !== 'ch.not_set_up') throw error;
          console.log(oneLine(`✗ ${what}: ${error.message}`));
          code = 1;
        }
      }
      if ((await letters.find(['open'], {table: name})).length > 0) continue;
      const row = (await registry.tables()).find(table => nameOf(table) === name);
      if (row && isSetAsideBySink(row)) {
        await registry.unpark(name);
        console.log(oneLine(`✓ ${name} goes on: a running sink takes it up within seconds`));
      } else if (row?.state === 'parked')
        code = Math.max(code, await resync(settings, [name], {wait: false}));
    }
    return code;
  });
}

async function withLetters(
  settings: Settings,
  {patterns, places = [], parked = false}: Which,
  work: (chosen: Chosen, client: ReturnType<typeof clickhouseClient>) => Promise<number>,
): Promise<number> {
  const client = clickhouseClient(settings);
  try {
    const letters = new DeadLetters(client, settings);
    const registry = new Registry(client, settings);
    const matches = nameMatcher(patterns);
    const chosen = (name: string): boolean => patterns.includes(name) || matches(name);
    const tables = new Map<string, Letter[]>();
    for (const row of await registry.tables()) {
      if (parked && row.state === 'parked' && places.length === 0 && chosen(nameOf(row)))
        tables.set(nameOf(row), []);
    }
    for (const letter of await letters.find(['open'])) {
      const name = letterTable(letter);
      if (!chosen(name) || (places.length > 0 && !places.includes(shortPlace(letter)))) continue;
      tables.set(name, [...(tables.get(name) ?? []), letter]);
    }
    return await work({letters, registry, tables}, client);
  } finally {
    await client.close();
  }
}
