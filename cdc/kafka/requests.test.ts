import test from 'ava';
import fc from 'fast-check';
import type {PipelineError} from '../failures.ts';
import {rowImage, splitObject} from '../sink/row-json.ts';
import {type TableDefinition, tableSchema} from '../source/table-schema.ts';
import {HEADER, type OutMessage} from './message.ts';
import {inRequests, wireBytes} from './requests.ts';

const column = (name: string) => ({
  name,
  typeOid: 25,
  notNull: false,
  type: {name: 'text', kind: 'b', modifier: -1, array: false, delimiter: ','},
});
const definition = {schema: 'public', table: 't', key: ['k'], columns: ['k', 'a', 'b'].map(column)};
const table = tableSchema(definition as unknown as TableDefinition);
const LIMIT = 2_000;
const refused = (_: OutMessage, error: PipelineError): never => {
  throw error;
};

function message(partition: number, key: string, row: Record<string, unknown>, deleted = false): OutMessage {
  const image = JSON.stringify({k: key, ...row});
  const [before, after] = deleted ? [image, 'null'] : ['null', image];
  return {
    table,
    partition,
    key: Buffer.from(JSON.stringify({k: key})),
    value: Buffer.from(`{"before":${before},"after":${after},"source":{"txId":1},"op":"c"}`),
    headers: {
      [HEADER.row]: `"_version":"1","_is_deleted":${deleted ? 1 : 0},"_commit_ts":1}`,
      [HEADER.key]: JSON.stringify({k: key}),
      [HEADER.unchanged]: '["b"]',
      [HEADER.rejects]: '[{"column":"a","reason":"r"}]',
    },
  };
}

test('R14 requests keep the order, and no partition has more in one than its topic takes', t => {
  const any = fc.record({partition: fc.nat(2), size: fc.nat(1_500)});
  const seed = Date.now() % 2 ** 31;
  t.log(`seed ${seed}`);
  fc.assert(
    fc.property(fc.array(any, {maxLength: 40}), list => {
      const messages = list.map(({partition, size}, i) => message(partition, `${i}`, {a: 'x'.repeat(size)}));
      const requests = [...inRequests(messages, () => LIMIT, refused)];
      const bytes = (request: OutMessage[], partition: number): number =>
        request.filter(one => one.partition === partition).reduce((sum, one) => sum + wireBytes(one), 0);
      return (
        requests.flat().every((one, i) => one === messages[i]) &&
        requests.flat().length === messages.length &&
        requests.every(request => [0, 1, 2].every(partition => bytes(request, partition) <= LIMIT))
      );
    }),
    {seed, numRuns: 500},
  );
  t.pass();
});

test('R14 a row above the limit goes without its largest values, which are to be looked up in PostgreSQL', t => {
  const [request] = [
    ...inRequests([message(0, 'key', {a: 'ü'.repeat(5_000), b: 'mark'})], () => LIMIT, refused),
  ];
  const [small] = request!;
  t.true(wireBytes(small!) <= LIMIT);
  t.deepEqual(
    [...splitObject(rowImage(small!.value, false))],
    [
      ['k', '"key"'],
      ['a', '"__debezium_unavailable_value"'],
      ['b', '"mark"'],
    ],
  );
  const {headers} = small!;
  t.deepEqual(JSON.parse(String(headers[HEADER.unchanged])), ['b', 'a']);
  t.is(headers[HEADER.moved], '1');
  t.false(HEADER.rejects in headers); // found again where it is looked up
  const [[deletion]] = [
    ...inRequests([message(0, 'key', {a: 'x'.repeat(5_000)}, true)], () => LIMIT, refused),
  ] as [[OutMessage]];
  t.is(rowImage(deletion.value, true).toString(), '{"k":"key"}');
});

test('R14 a key above the limit is refused by name', t => {
  const large = message(0, 'x'.repeat(5_000), {a: 'x'});
  const [before, behind] = [message(0, 'before', {}), message(0, 'behind', {})];
  const told: [OutMessage, PipelineError][] = [];
  const requests = [
    ...inRequests(
      [before, large, behind],
      () => LIMIT,
      (...one) => told.push(one),
    ),
  ];
  t.deepEqual(requests.flat(), [before, behind]);
  t.is(told.length, 1);
  t.is(told[0]![0], large);
  t.like(told[0]![1], {code: 'kafka.message_too_large', table: 'public.t'});
});
