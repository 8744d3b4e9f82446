import test from 'ava';
import pg from 'pg';
import {createRandom} from '../../scripts/shop/random.ts';
import {PipelineError} from '../failures.ts';
import {makeWorld, type World} from '../test-support/start-pipeline.ts';
import {type Message, PgoutputDecoder} from './pgoutput.ts';
import {clientConfig} from './postgres.ts';
import {ReplicationConnection} from './replication-connection.ts';
import {StreamedTransactions} from './streamed-transactions.ts';

const SEED = Number(process.env.FRESHET_TEST_SEED ?? Date.now() % 2 ** 31);

/** Everything that a slot sends up to the message `end`. */
async function read({settings}: World, slot: string, streamed: boolean): Promise<[bigint, Buffer][]> {
  const walsender = await ReplicationConnection.connect(clientConfig(settings));
  const source = streamed ? new StreamedTransactions(walsender, settings) : walsender;
  const over = new AbortController();
  const frames: [bigint, Buffer][] = [];
  try {
    await source.stream({
      slot,
      publication: settings.FRESHET_PUBLICATION,
      signal: over.signal,
      onData(lsn, frame, start) {
        const own = Buffer.from(frame.subarray(start));
        frames.push([lsn, own]);
        const message = new PgoutputDecoder().decode(own);
        if (message.tag === 'message' && message.prefix === 'end') over.abort();
      },
      onKeepalive() {},
    });
  } finally {
    source.close();
  }
  return frames;
}

/** A database whose transactions are streamed from 64 kB on, with slots that stand at the same place. */
async function streamingWorld(t: Parameters<typeof makeWorld>[0], slots: readonly string[]): Promise<World> {
  const world = await makeWorld(
    t,
    `CREATE TABLE a (id int PRIMARY KEY, v int, body text); CREATE TABLE b (x text PRIMARY KEY, y int);
     ALTER TABLE a ALTER body SET STORAGE EXTERNAL; ALTER TABLE b REPLICA IDENTITY FULL`,
  );
  const {settings, pg: client} = world;
  const {rows} = await client.query<{name: string}>('SELECT current_database() AS name');
  await client.query(
    `ALTER DATABASE ${rows[0]!.name} SET logical_decoding_work_mem = '64kB';
     CREATE PUBLICATION ${settings.FRESHET_PUBLICATION} FOR ALL TABLES`,
  );
  for (const slot of slots)
    await client.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [
      `${settings.FRESHET_SLOT}_${slot}`,
    ]);
  return world;
}

const CHANGES: readonly ((i: number) => string)[] = [
  i => `INSERT INTO a SELECT ${i} * 1000 + n, n, repeat(md5(n::text), 3) FROM generate_series(1, 400) n`,
  i => `INSERT INTO a VALUES (${i} * 1000, 1, repeat(md5('${i}'), 3000))`,
  i => `UPDATE a SET v = v + 1 WHERE id / 1000 BETWEEN ${i} - 40 AND ${i} - 3 AND id % 3 = 0`,
  i => `UPDATE a SET id = -id WHERE id / 1000 = ${i} - 7 AND id % 50 = 0`,
  i => `DELETE FROM a WHERE id / 1000 = ${i} - 11`,
  i => `INSERT INTO b SELECT ${i} || '-' || n, n FROM generate_series(1, 300) n`,
  i => `UPDATE b SET y = y + 1 WHERE x LIKE '${i % 10}%'`,
  i => `INSERT INTO a VALUES (${i} * 1000 + 1, 1, '') ON CONFLICT (id) DO UPDATE SET v = 7`,
  () => 'ALTER TABLE b ADD COLUMN IF NOT EXISTS z int DEFAULT 5',
  () => 'ALTER TABLE b DROP COLUMN IF EXISTS z',
  () => 'TRUNCATE b',
];
const STEPS = 400;

test('transactions that were streamed come out as protocol 1 sends them', async t => {
  t.log(`seed ${SEED}`);
  const random = createRandom(SEED, 'streamed');
  const world = await streamingWorld(t, ['one', 'two']);
  const {settings, pg: client} = world;
  const sessions = await Promise.all(
    [0, 1, 2].map(async () => {
      const session = new pg.Client(settings.FRESHET_PG_URL);
      await session.connect();
      await session.query("SET lock_timeout = '50ms'");
      t.teardown(() => session.end());
      return {session, open: false, depth: 0};
    }),
  );
  for (let i = 1; i <= STEPS; i++) {
    const own = sessions[random.between(0, 2)]!;
    const run = async (sql: string): Promise<void> => {
      // A statement that fails (a lock, a key that exists) goes back to its own savepoint.
      if (!own.open) await own.session.query(sql).catch(() => {});
      else
        await own.session
          .query(`SAVEPOINT own; ${sql}; RELEASE own`)
          .catch(() => own.session.query('ROLLBACK TO own; RELEASE own'));
    };
    const choice = random.between(0, 11);
    if (!own.open && choice < 6) {
      await own.session.query('BEGIN');
      Object.assign(own, {open: true, depth: 0});
    } else if (own.open && choice === 0) {
      await own.session.query(random.between(0, 3) === 0 ? 'ROLLBACK' : 'COMMIT');
      own.open = false;
    } else if (own.open && choice === 1) await own.session.query(`SAVEPOINT s${++own.depth}`);
    else if (own.open && choice === 2 && own.depth > 0)
      await own.session.query(`ROLLBACK TO s${random.between(1, own.depth)}`).catch(async () => {
        await own.session.query('ROLLBACK');
        own.open = false;
      });
    else await run(CHANGES[random.between(0, CHANGES.length - 1)]!(i));
  }
  for (const {session, open} of sessions) if (open) await session.query('COMMIT');
  await client.query("SELECT pg_logical_emit_message(true, 'end', '')");

  const [plain, streamed] = [
    await read(world, `${settings.FRESHET_SLOT}_one`, false),
    await read(world, `${settings.FRESHET_SLOT}_two`, true),
  ];
  const {rows} = await client.query<{name: string; transactions: number}>(
    `SELECT slot_name AS name, stream_txns::int AS transactions FROM pg_stat_replication_slots
     WHERE slot_name LIKE $1 ORDER BY slot_name`,
    [`${settings.FRESHET_SLOT}_%`],
  );
  t.log(`${plain.length} frames, ${rows.map(({transactions}) => transactions)} transactions streamed`);
  t.is(rows[0]!.transactions, 0);
  t.true(rows[1]!.transactions > 5);
  const [want, got] = [described(plain), described(streamed)];
  t.true(want.length > 5_000);
  const differs = want.findIndex((line, i) => line !== got[i]);
  t.is(differs, -1, `${want[differs]?.slice(0, 200)} came out as ${got[differs]?.slice(0, 200)}`);
  t.is(got.length, want.length);
});

/**
 * The frames as text, each change with how its relation was described last; the descriptions themselves left out, and
 * so are transactions of which nothing is left, which PostgreSQL may send or not.
 */
function described(frames: readonly [bigint, Buffer][]): string[] {
  const decoder = new PgoutputDecoder();
  const relations = new Map<number, string>();
  const oidOf = (message: Message): number | undefined =>
    'oid' in message ? message.oid : 'oids' in message ? message.oids[0] : undefined;
  const lines = frames.flatMap(([lsn, frame]) => {
    const message = decoder.decode(frame);
    if (message.tag === 'relation') relations.set(message.oid, frame.toString('hex'));
    if (message.tag === 'relation' || message.tag === 'type') return [];
    // A begin comes at the transaction's first change, which nobody asks for.
    const at = message.tag === 'begin' ? 0n : lsn;
    return [`${message.tag} ${at} ${frame.toString('hex')} ${relations.get(oidOf(message) ?? 0)}`];
  });
  const isEmpty = (i: number): boolean =>
    (lines[i]?.startsWith('begin ') && lines[i + 1]?.startsWith('commit ')) ?? false;
  return lines.filter((_, i) => !isEmpty(i) && !isEmpty(i - 1));
}

test('a schema change that may have been rolled back with its savepoint is not guessed at', async t => {
  const world = await streamingWorld(t, ['one']);
  const {settings, pg: client} = world;
  await client.query(
    `BEGIN; INSERT INTO a SELECT n, n, repeat('x', 100) FROM generate_series(1, 3000) n; SAVEPOINT s;
     SELECT pg_logical_emit_message(true, 'freshet:${settings.FRESHET_SLOT}', '{}');
     INSERT INTO a SELECT -n, n, repeat('x', 100) FROM generate_series(1, 3000) n; ROLLBACK TO s; COMMIT;
     SELECT pg_logical_emit_message(true, 'end', '')`,
  );
  const error = await t.throwsAsync(read(world, `${settings.FRESHET_SLOT}_one`, true), {
    instanceOf: PipelineError,
  });
  t.is((error as PipelineError).code, 'pg.streaming');
});
