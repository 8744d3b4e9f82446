import {type TypeMapping, text} from './mapping.ts';

/**
 * Types of extensions, by extension: only these, each as PostgreSQL's text. What is not here is refused, for its text
 * may not be its value.
 */
export const EXTENSION_TYPES: Readonly<Record<string, Readonly<Record<string, TypeMapping>>>> = {
  citext: {citext: text('MiXed', '', 'Straße \\N "x"')},
  cube: {cube: text('(1,2.5)', '(0),(1e-300)', '(-0, NaN),(Infinity, 3)')},
  hstore: {hstore: text('', '"a"=>NULL, "b"=>"x"', '"q\\"uote"=>"back\\\\slash", ""=>"NULL", "漢"=>"=>,"')},
  intarray: {query_int: text('1&(2|!3)')},
  isn: {
    ean13: text('978-0-11-000533-1'),
    isbn: text('978-0-393-04002-9', '0-393-04002-X'),
    isbn13: text('978-0-393-04002-9'),
    ismn: text('979-0-060-11561-5'),
    ismn13: text('979-0-060-11561-5'),
    issn: text('1436-4522'),
    issn13: text('977-1436-452-00-8'),
    upc: text('220356483481'),
  },
  ltree: {
    ltree: text('a.b', '', 'Top.Science_1.A'),
    lquery: text('Top.*{1,2}.!a|b@*', 'a'),
    ltxtquery: text('Europe & Russia*@ & !Transport'),
  },
  postgis: {
    box2d: text('BOX(0 0,1 2.5)'),
    box3d: text('BOX3D(0 0 0,1 2.5 3)'),
    geography: text('SRID=4326;POINT(-122.4 37.8)'),
    geometry: text('SRID=4326;POINT(1 2.5)', 'POLYGON((0 0,0 1,1 1,0 0))', 'POINT EMPTY'),
  },
  seg: {seg: text('1.0', '<0.50 .. ~1', '5(+-)0.3', '1.5e-3 .. 2.00')},
  vector: {
    halfvec: text('[1,2.5]'),
    sparsevec: text('{1:1.5,3:-2}/5'),
    vector: text('[1,2.5]', '[-0,1e-38,0.1]'),
  },
};
