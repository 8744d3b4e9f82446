import test from 'ava';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {EXTENSION_TYPES} from './extensions.ts';
import {precisionAndScale} from './numeric.ts';
import {REFUSED} from './refused.ts';
import {columnType, TYPES} from './types.ts';

/** Extensions that bring types of which some have no row, for they are not for columns. */
const OTHER_EXTENSIONS = ['btree_gist', 'pg_trgm', 'lo', 'earthdistance'];

test('each base type of the server and its extensions has a row, or a reason to be refused', async t => {
  const {pg} = await makeWorld(t, '');
  const {rows: available} = await pg.query<{name: string}>('SELECT name FROM pg_available_extensions');
  const wanted = [...Object.keys(EXTENSION_TYPES), ...OTHER_EXTENSIONS];
  for (const name of wanted.filter(own => available.some(row => row.name === own)))
    await pg.query(`CREATE EXTENSION IF NOT EXISTS ${name} CASCADE`);
  // Base types that are not arrays; the rows of catalogs are composites, ranges go by their kind.
  const {rows: base} = await pg.query<{name: string; extension: string | null}>(`
    SELECT t.typname AS name, x.extname AS extension FROM pg_type t
    LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
    LEFT JOIN pg_extension x ON x.oid = d.refobjid
    WHERE t.typtype = 'b' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)`);
  t.true(base.length > 60);
  const known = (name: string): number => Number(name in TYPES) + Number(name in REFUSED);
  t.deepEqual(
    // numeric goes by its modifier.
    base.filter(({name}) => name !== 'numeric' && known(name) !== 1),
    [],
  );
  // Nobody has to guess where a row belongs.
  for (const {name, extension} of base.filter(row => row.name in TYPES))
    t.is(extension !== null && name in EXTENSION_TYPES[extension]!, extension !== null, name);
});

const base = (name: string, kind = 'b') => ({name, kind, modifier: -1, array: false, delimiter: ','});

test('a type without a row is refused, with the reason where there is one', t => {
  t.throws(() => columnType(base('regclass'), false), {
    code: 'type.unsupported',
    message: /regclass: its text/,
  });
  t.throws(() => columnType(base('pg_node_tree'), true), {message: /PostgreSQL makes it for its own use/});
  t.throws(() => columnType({...base('aclitem'), array: true}, false), {code: 'type.unsupported'});
  t.throws(() => columnType(base('tdigest'), false), {message: 'no mapping for type tdigest'});
  for (const name of ['constructor', 'toString', '__proto__'])
    t.throws(() => columnType(base(name), false), {code: 'type.unsupported'});
  // An array whose elements are arrays, which only domains can make.
  t.throws(() => columnType({...base('_int4'), array: true}, false), {code: 'type.unsupported'});
});

test('only a base type goes by its name', t => {
  t.is(columnType(base('date', 'e'), true).column, 'LowCardinality(String)');
  t.is(columnType(base('numeric', 'r'), false).column, 'Nullable(String)');
  t.is(columnType(base('constructor', 'c'), false).column, 'Nullable(String)');
});

test('numeric(p, s) → the Decimal that holds it', t => {
  const column = (precision: number, scale: number): string => {
    const modifier = ((precision << 16) | (scale & 0x7ff)) + 4;
    t.deepEqual(precisionAndScale(modifier), {precision, scale});
    return columnType({...base('numeric'), modifier}, true).column;
  };
  t.is(column(12, 3), 'Decimal(12, 3)');
  t.is(column(76, 76), 'Decimal(76, 76)');
  t.is(column(77, 0), 'String');
  t.is(column(5, -2), 'Decimal(7, 0)');
  t.is(column(3, -73), 'Decimal(76, 0)');
  t.is(column(3, -74), 'String');
  t.is(column(2, 5), 'Decimal(5, 5)');
  t.is(column(1, 77), 'String');
  t.is(column(1000, -1000), 'String');
  t.is(columnType(base('numeric'), true).column, 'String');
});
