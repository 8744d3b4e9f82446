import test from 'ava';
import fc from 'fast-check';
import type {PipelineError} from '../failures.ts';
import {rowImage, splitObject} from '../sink/row-json.ts';
import {type TableDefinition, tableSchema} from '../source/table-schema.ts';
import {HEADER, type OutMessage} from './message.ts';
import {MessageList, type Sendable} from './producer.ts';
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
/** The requests, as partition and messages. */
const cut = (
  messages: readonly OutMessage[],
  refuse = (_: OutMessage, error: PipelineError): void => {
    throw error;
  },
): {partition: number; messages: readonly Sendable[]}[][] =>
  [...inRequests(messages, {limitOf: () => LIMIT, refuse, records: () => new MessageList()})].map(request =>
    request.map(({partition, records}) => ({partition, messages: records.messages})),
  );

function message(partition: number, key: string, row: Record<string, unknown>, deleted = false): OutMessage {
  const image = JSON.stringify({k: key, ...row});
  const [before, after] = deleted ? [image, 'null'] : ['null', image];
  return {
    table,
    partition,
    key: Buffer.from(JSON.stringify({k: key})),
    value: Buffer.from(`{"before":${before},"after":${after},"source":{"txId":1},"op":"c"}`),
    headers: {
      [HEADER.row]: Buffer.from(`"_version":"1","_is_deleted":${deleted ? 1 : 0},"_commit_ts":1}`),
      [HEADER.key]: Buffer.from(JSON.stringify({k: key})),
      [HEADER.unchanged]: Buffer.from('["b"]'),
      [HEADER.rejects]: Buffer.from('[{"column":"a","reason":"r"}]'),
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
      const requests = cut(messages);
      const parts = requests.flat();
      const bytes = (own: readonly Sendable[]): number => own.reduce((sum, one) => sum + wireBytes(one), 0);
      return (
        requests.every(request => new Set(request.map(({partition}) => partition)).size === request.length) &&
        parts.every(({messages: own}) => bytes(own) <= LIMIT) &&
        [0, 1, 2].every(partition => {
          const of = parts.filter(part => part.partition === partition).flatMap(part => part.messages);
          const wanted = messages.filter(one => one.partition === partition);
          return of.length === wanted.length && of.every((one, i) => one === wanted[i]);
        })
      );
    }),
    {seed, numRuns: 500},
  );
  t.pass();
});

test('R14 a row above the limit goes without its largest values, which are to be looked up in PostgreSQL', t => {
  const [request] = cut([message(0, 'key', {a: 'ü'.repeat(5_000), b: 'mark'})]);
  const [small] = request![0]!.messages;
  t.true(wireBytes(small!) <= LIMIT);
  t.deepEqual(
    [...splitObject(rowImage(small!.value))],
    [
      ['k', '"key"'],
      ['a', '"__debezium_unavailable_value"'],
      ['b', '"mark"'],
    ],
  );
  const {headers} = small!;
  t.deepEqual(JSON.parse(String(headers[HEADER.unchanged])), ['b', 'a']);
  t.is(String(headers[HEADER.moved]), '1');
  t.false(HEADER.rejects in headers); // found again where it is looked up
  const [only] = cut([message(0, 'key', {a: 'x'.repeat(5_000)}, true)]);
  const [deletion] = only![0]!.messages;
  t.true(deletion!.value.toString().startsWith('{"before":{"k":"key"},"after":null,'));
});

test('R14 a key above the limit is refused by name', t => {
  const large = message(0, 'x'.repeat(5_000), {a: 'x'});
  const [before, behind] = [message(0, 'before', {}), message(0, 'behind', {})];
  const told: [OutMessage, PipelineError][] = [];
  const requests = cut([before, large, behind], (...one) => told.push(one));
  t.deepEqual(
    requests.flat().flatMap(part => part.messages),
    [before, behind],
  );
  t.is(told.length, 1);
  t.is(told[0]![0], large);
  t.like(told[0]![1], {code: 'kafka.message_too_large', table: 'public.t'});
});
