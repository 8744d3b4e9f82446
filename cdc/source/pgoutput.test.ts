import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import {PgoutputPlugin} from 'pg-logical-replication';
import {PipelineError} from '../failures.ts';
import {makeWorld} from '../test-support/start-pipeline.ts';
import {formatLsn, parseLsn} from './lsn.ts';
import {type Message, PgoutputDecoder, type RelationColumn, type Tuple, VALUE} from './pgoutput.ts';

/** Column → text, null, or undefined for an unchanged TOAST value. */
type Row = Record<string, string | null | undefined>;

const DDL = `
  CREATE DOMAIN positive AS int CHECK (VALUE > 0);
  CREATE TYPE mood AS ENUM ('sad', 'happy');
  CREATE TABLE a (id int PRIMARY KEY, feeling mood, n positive, "odd ""name" text, body text, at timestamptz);
  CREATE TABLE b (x text, y int, z numeric(5,2), body text, PRIMARY KEY (y, x));
  CREATE TABLE c (id bigint, v text);
  ALTER TABLE a ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE b ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE b REPLICA IDENTITY FULL;
  CREATE UNIQUE INDEX ON c (id);
  ALTER TABLE c ALTER id SET NOT NULL;
  ALTER TABLE c REPLICA IDENTITY USING INDEX c_id_idx;`;

const CHANGES = [
  `INSERT INTO a VALUES (1, 'sad', 5, E'tab\\tline\\nquote"back\\\\ 🌊', repeat('x', 5000), now()), (2, NULL, NULL, '', NULL, NULL)`,
  `UPDATE a SET feeling = 'happy' WHERE id = 1`, // body stays: 'u'
  'UPDATE a SET id = 10 WHERE id = 1', // its old key comes along
  'DELETE FROM a WHERE id = 2',
  `INSERT INTO b VALUES ('k', 1, 1.50, repeat('y', 5000)), ('', 2, NULL, NULL)`,
  `UPDATE b SET z = 2`, // FULL: the old row, detoasted
  'DELETE FROM b WHERE y = 1',
  `INSERT INTO c VALUES (9223372036854775807, 'v')`,
  'UPDATE c SET id = 1',
  'DELETE FROM c',
  `SELECT pg_logical_emit_message(true, 'in', 'a transaction'), pg_logical_emit_message(false, 'out', '')`,
  'TRUNCATE a, b RESTART IDENTITY CASCADE',
];

/** Frames of all kinds, as the server sends them. */
async function capture(t: ExecutionContext): Promise<Buffer[]> {
  const {pg, settings} = await makeWorld(t, DDL);
  const slot = settings.FRESHET_SLOT;
  await pg.query(`CREATE PUBLICATION p FOR ALL TABLES`);
  await pg.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
  for (const sql of CHANGES) await pg.query(sql);
  // A transaction that says it came from elsewhere.
  await pg.query('SELECT pg_replication_origin_create($1), pg_replication_origin_session_setup($1)', [slot]);
  await pg.query(`INSERT INTO c VALUES (2, 'from elsewhere')`);
  await pg.query('SELECT pg_replication_origin_session_reset(), pg_replication_origin_drop($1)', [slot]);
  const {rows} = await pg.query<{data: Buffer}>(
    `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '1', 'publication_names', 'p', 'messages', 'true')`,
    [slot],
  );
  return rows.map(({data}) => data);
}

/** What stands around the blocks of transactions that are sent while they are open, as the server sends it. */
async function captureStreamed(t: ExecutionContext): Promise<Buffer[]> {
  const {pg, settings} = await makeWorld(t, DDL);
  await pg.query("CREATE PUBLICATION p FOR ALL TABLES; SET logical_decoding_work_mem = '64kB'");
  await pg.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [settings.FRESHET_SLOT]);
  const insert = (from: number): string =>
    `INSERT INTO c SELECT n, repeat('x', 100) FROM generate_series(${from}, ${from + 2_000}) n`;
  await pg.query(
    `BEGIN; ${insert(0)}; SAVEPOINT s; ${insert(10_000)}; ROLLBACK TO s; ${insert(20_000)}; COMMIT`,
  );
  const {rows} = await pg.query<{data: Buffer}>(
    `SELECT data FROM pg_logical_slot_get_binary_changes($1, NULL, NULL, 'proto_version', '2', 'publication_names', 'p', 'streaming', 'on')`,
    [settings.FRESHET_SLOT],
  );
  return rows.map(({data}) => data).filter(data => 'SEcA'.includes(String.fromCharCode(data[0]!)));
}

test('what stands around the blocks of an open transaction', async t => {
  const decoder = new PgoutputDecoder();
  const messages = (await captureStreamed(t)).map(frame => decoder.decode(frame));
  const xid = messages[0]?.tag === 'stream start' ? messages[0].xid : 0;
  t.true(xid > 0);
  const commit = messages.at(-1);
  if (commit?.tag !== 'stream commit') return t.fail(commit?.tag);
  t.is(commit.xid, xid);
  t.true(commit.endLsn > commit.commitLsn);
  t.true(Math.abs(Number(commit.commitMicros) / 1000 - Date.now()) < 3_600_000);
  const aborted = messages.filter(message => message.tag === 'stream abort');
  t.true(aborted.length > 0 && aborted.every(abort => abort.xid === xid && abort.subXid > xid));
  const blocks = messages.filter(({tag}) => tag === 'stream start' || tag === 'stream stop');
  t.deepEqual(
    blocks.map(({tag}) => tag),
    blocks.map((_, i) => (i % 2 === 0 ? 'stream start' : 'stream stop')),
  );
  return t.pass();
});

test('every kind of message is read as pg-logical-replication reads it', async t => {
  const frames = await capture(t);
  const oracle = new PgoutputPlugin({protoVersion: 1, publicationNames: ['p']});
  const decoder = new PgoutputDecoder();
  const relations = new Map<number, readonly RelationColumn[]>();
  const tags = new Map<string, number>();
  const kinds = new Set<number>();
  for (const frame of frames) {
    const theirs = oracle.parse(frame);
    if (theirs.tag === 'relation') for (const column of theirs.columns) column.parser = (raw: unknown) => raw;
    const ours = decoder.decode(frame);
    if (ours.tag === 'relation') relations.set(ours.oid, ours.columns);
    t.deepEqual(plain(ours, relations), oracleForm(theirs), `${theirs.tag} ${frame.toString('hex', 0, 60)}`);
    tags.set(ours.tag, (tags.get(ours.tag) ?? 0) + 1);
    for (const tuple of tuplesOf(ours)) for (const kind of tuple.kind.slice(0, tuple.count)) kinds.add(kind);
  }
  const {begin, commit, relation, type, ...rest} = Object.fromEntries(tags);
  t.is(begin, commit);
  t.true(relation! >= 3 && type! >= 2, 'and again after an invalidation');
  t.deepEqual(rest, {insert: 6, update: 5, delete: 3, truncate: 1, message: 2, origin: 1});
  t.deepEqual([...kinds].sort(), Object.values(VALUE).sort());
});

test('a frame that is cut or damaged is refused as such, and nothing behind it is read', async t => {
  const frames = [...(await capture(t)), ...(await captureStreamed(t)).slice(-8)];
  const before = fc.uint8Array({maxLength: 20});
  const after = fc.uint8Array({maxLength: 40});
  const damage = fc.record({
    frame: fc.constantFrom(...frames),
    cut: fc.option(fc.double({min: 0, max: 1, noNaN: true})),
    flips: fc.array(fc.tuple(fc.double({min: 0, max: 1, noNaN: true}), fc.nat(7)), {maxLength: 4}),
    around: fc.tuple(before, after, before, after),
  });
  let refused = 0;
  const property = fc.property(damage, ({frame, cut, flips, around: [b1, a1, b2, a2]}) => {
    const bytes = Buffer.from(frame.subarray(0, cut === null ? undefined : Math.floor(cut * frame.length)));
    // Most of a frame is one long value: half of the flips go to its first bytes.
    for (const [i, [place, bit]] of flips.entries()) {
      const range = i % 2 === 0 ? bytes.length : Math.min(bytes.length, 64);
      if (range > 0) bytes[Math.min(range - 1, Math.floor(place * range))]! ^= 1 << bit;
    }
    const outcome = outcomeOf(bytes, b1, a1);
    if (outcome === 'pg.protocol') refused += 1;
    return JSON.stringify(outcome) === JSON.stringify(outcomeOf(bytes, b2, a2));
  });
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  fc.assert(property, {seed, numRuns: 5_000});
  t.true(refused > 100 && refused < 5_000, `${refused} refused`);
});

/** Decodes the bytes in the midst of others: what it gives must not depend on those. */
function outcomeOf(bytes: Buffer, before: Uint8Array, after: Uint8Array): unknown {
  const whole = Buffer.concat([before, bytes, after]);
  const end = before.length + bytes.length;
  try {
    const message = new PgoutputDecoder().decode(whole, before.length, end);
    for (const tuple of tuplesOf(message)) {
      for (let i = 0; i < tuple.count; i++) {
        const [from, to] = [tuple.start[i]!, tuple.end[i]!];
        if (tuple.kind[i] === VALUE.text && !(before.length <= from && from <= to && to <= end))
          throw new RangeError(`a value at ${from} to ${to} of ${end}`);
      }
    }
    return plain(message, new Map());
  } catch (error) {
    if (error instanceof PipelineError && error.code === 'pg.protocol') return error.code;
    throw error;
  }
}

function tuplesOf(message: Message): Tuple[] {
  switch (message.tag) {
    case 'insert':
      return [message.now];
    case 'update':
      return message.old ? [message.old, message.now] : [message.now];
    case 'delete':
      return [message.old];
    default:
      return [];
  }
}

function row(tuple: Tuple, columns: readonly RelationColumn[] | undefined, whole?: Row): Row {
  const values = Array.from({length: tuple.count}, (_, i): [string, string | null | undefined] => {
    const name = columns?.[i]?.name ?? String(i);
    if (tuple.kind[i] === VALUE.text)
      return [name, tuple.frame.toString('utf8', tuple.start[i], tuple.end[i])];
    return [name, tuple.kind[i] === VALUE.null ? null : whole?.[name]];
  });
  return Object.fromEntries(values);
}

/** A message of ours without its bytes. Keys are cut down to the columns of the identity. */
function plain(message: Message, relations: ReadonlyMap<number, readonly RelationColumn[]>): unknown {
  switch (message.tag) {
    case 'insert':
      return {tag: 'insert', oid: message.oid, now: row(message.now, relations.get(message.oid))};
    case 'update':
    case 'delete': {
      const columns = relations.get(message.oid);
      const old = message.old && row(message.old, columns);
      const identity = columns?.filter(column => column.inIdentity).map(({name}) => name);
      const key = old && !message.whole ? Object.fromEntries(identity?.map(n => [n, old[n]]) ?? []) : null;
      const base = {oid: message.oid, key, old: message.whole ? old : null};
      if (message.tag === 'delete') return {tag: 'delete', ...base};
      const whole = message.whole ? (old ?? undefined) : undefined;
      return {tag: 'update', ...base, now: row(message.now, columns, whole)};
    }
    case 'begin':
      return {...message, commitLsn: formatLsn(message.commitLsn), commitMicros: `${message.commitMicros}`};
    case 'commit':
      return {...message, commitLsn: formatLsn(message.commitLsn), endLsn: formatLsn(message.endLsn)};
    case 'stream commit':
      return {
        ...message,
        commitLsn: '',
        endLsn: `${message.endLsn}`,
        commitMicros: `${message.commitMicros}`,
      };
    case 'message':
      return {...message, lsn: formatLsn(message.lsn), content: message.content.toString('hex')};
    default:
      return message;
  }
}

/** A message of the oracle in the same form. It reads OIDs and xids as signed, and pads positions. */
function oracleForm(message: ReturnType<PgoutputPlugin['parse']>): unknown {
  const oid = (signed: number): number => signed >>> 0;
  const lsn = (text: string | null): string => formatLsn(parseLsn(text ?? '0/0'));
  const plainRow = (held: Record<string, unknown> | null): unknown => held && {...held};
  switch (message.tag) {
    case 'begin':
      return {
        tag: 'begin',
        commitLsn: lsn(message.commitLsn),
        commitMicros: `${message.commitTime}`,
        xid: oid(message.xid),
      };
    case 'commit':
      return {tag: 'commit', commitLsn: lsn(message.commitLsn), endLsn: lsn(message.commitEndLsn)};
    case 'relation':
      return {
        tag: 'relation',
        oid: oid(message.relationOid),
        schema: message.schema,
        table: message.name,
        identity: {default: 'd', nothing: 'n', full: 'f', index: 'i'}[message.replicaIdentity],
        columns: message.columns.map(column => ({
          inIdentity: (column.flags & 1) === 1,
          name: column.name,
          typeOid: oid(column.typeOid),
          modifier: column.typeMod,
        })),
      };
    case 'insert':
      return {tag: 'insert', oid: oid(message.relation.relationOid), now: plainRow(message.new)};
    case 'update':
    case 'delete': {
      const base = {
        oid: oid(message.relation.relationOid),
        key: plainRow(message.key),
        old: plainRow(message.old),
      };
      return message.tag === 'delete'
        ? {tag: 'delete', ...base}
        : {tag: 'update', ...base, now: plainRow(message.new)};
    }
    case 'truncate':
      return {tag: 'truncate', oids: message.relations.map(({relationOid}) => oid(relationOid))};
    case 'message':
      return {
        tag: 'message',
        transactional: message.transactional,
        lsn: lsn(message.messageLsn),
        prefix: message.prefix,
        content: Buffer.from(message.content).toString('hex'),
      };
    default:
      return {tag: message.tag};
  }
}
