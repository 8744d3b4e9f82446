import type {MigrateOptions} from '../../clickhouse/migrate.ts';
import {migrate, migrationStatus} from '../../clickhouse/migrate.ts';
import {dropVersion, rollBack, viewVersions} from '../../clickhouse/versions.ts';
import {databasesOf} from '../context.ts';
import {textTable} from '../observe/text-table.ts';
import type {Settings} from '../settings/settings.ts';
import {clickhouseClient} from '../sink/clickhouse.ts';

async function connected<T>(settings: Settings, work: (options: MigrateOptions) => Promise<T>): Promise<T> {
  const client = clickhouseClient(settings);
  try {
    return await work({client, databases: databasesOf(settings)});
  } finally {
    await client.close();
  }
}

const waitsFor = ({file, missing}: {file: string; missing: readonly string[]}): string =>
  `· ${file} waits for ${missing.join('; ')}`;

/**
 * Applies what can be applied. `anew` lets go what is of another time zone or currency; without it that is refused,
 * since a shell that lacks a setting would do the same.
 */
export const migrateApply = (settings: Settings, {anew}: {anew: boolean}): Promise<number> =>
  connected(settings, async options => {
    const {applied, present, waiting} = await migrate({
      ...options,
      log: line => console.log(line),
      changeMadeWith: anew,
    });
    console.log(`${applied.length} applied, ${present.length} there before`);
    for (const one of waiting) console.log(waitsFor(one));
    return 0;
  });

/** Says what `apply` would do; 1 where an applied file was edited, so that it would do nothing. */
export const migratePlan = (settings: Settings): Promise<number> =>
  connected(settings, async options => {
    const {present, ready, waiting, changed} = await migrationStatus(options);
    console.log(`${ready.length} to apply, ${present.length} there`);
    for (const file of ready) console.log(`+ ${file}`);
    for (const one of waiting) console.log(waitsFor(one));
    for (const file of changed) console.log(`✗ ${file} was edited after it had been applied`);
    return changed.length > 0 ? 1 : 0;
  });

/** Which version each stable name shows. */
export const migrateStatus = (settings: Settings): Promise<number> =>
  connected(settings, async options => {
    const versions = await viewVersions(options);
    console.log(
      textTable(
        versions.map(({name, shows, there, isPinned}) => ({
          view: name,
          shows: shows === 0 ? 'not there' : `v${shows}${isPinned ? ', turned back' : ''}`,
          'versions that are there': there.map(version => `v${version}`).join(' '),
        })),
      ),
    );
    return 0;
  });

/** Turns a stable name to another version. */
export const migrateRollback = (settings: Settings, name: string, to: number | undefined): Promise<number> =>
  connected(settings, async options => {
    console.log(`${name} shows v${await rollBack(options, name, to)} now`);
    return 0;
  });

/** Drops a version of a view that nobody reads. */
export const migrateDrop = (settings: Settings, object: string): Promise<number> =>
  connected(settings, async options => {
    await dropVersion(options, object);
    console.log(`dropped ${object}`);
    return 0;
  });
