import {type MigrationFile, parseMigrationFile} from '../migration-files.ts';

/** A file of a view with one column `a`, a text. */
export const viewFile = (
  name: string,
  version: number,
  query: string,
  {requires = '', before = ''}: {requires?: string; before?: string} = {},
): MigrationFile =>
  parseMigrationFile(
    'view',
    `views/${name}.v${version}.sql`,
    `-- version: ${version}\n-- what: a test\n${requires && `-- requires: ${requires}\n`}-- changed: nothing
${before}
CREATE OR REPLACE VIEW {analytics}.${name}_v${version} {on_cluster} (a String COMMENT 'it''s a') SQL SECURITY DEFINER AS
${query}
COMMENT 'version ${version}';\n`,
  );
