const RENAMED =
  'its text is a name that can change while the row does not: store the oid or the name, or leave the column out of the publication';
const INTERNAL = 'PostgreSQL makes it for its own use';

/** Base types that deliberately have no row in TYPES, each with the reason. */
export const REFUSED: Readonly<Record<string, string>> = {
  aclitem: RENAMED,
  regclass: RENAMED,
  regcollation: RENAMED,
  regconfig: RENAMED,
  regdatabase: RENAMED,
  regdictionary: RENAMED,
  regnamespace: RENAMED,
  regoper: RENAMED,
  regoperator: RENAMED,
  regproc: RENAMED,
  regprocedure: RENAMED,
  regrole: RENAMED,
  regtype: RENAMED,
  gtsvector: INTERNAL,
  pg_brin_bloom_summary: INTERNAL,
  pg_brin_minmax_multi_summary: INTERNAL,
  pg_dependencies: INTERNAL,
  pg_mcv_list: INTERNAL,
  pg_ndistinct: INTERNAL,
  pg_node_tree: INTERNAL,
  // What extensions keep in their GiST indexes.
  gbtreekey2: INTERNAL,
  gbtreekey4: INTERNAL,
  gbtreekey8: INTERNAL,
  gbtreekey16: INTERNAL,
  gbtreekey32: INTERNAL,
  gbtreekey_var: INTERNAL,
  ghstore: INTERNAL,
  gtrgm: INTERNAL,
  intbig_gkey: INTERNAL,
  ltree_gist: INTERNAL,
};
