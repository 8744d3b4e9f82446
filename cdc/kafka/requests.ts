import {PipelineError} from '../failures.ts';
import {joinObject, rowImage, splitObject} from '../sink/row-json.ts';
import type {TableSchema} from '../source/table-schema.ts';
import {HEADER, isDeletion, type OutMessage} from './message.ts';
import type {Records} from './producer.ts';

/** Brokers hang up on a request of more than 100 MiB (`socket.request.max.bytes`), whatever the topic takes. */
const LARGEST_MESSAGE = 96 << 20;
/** A request has more than one message up to here; larger ones take more memory, and are no faster. */
export const FULL_REQUEST = 2 << 20;
/** Lengths, offsets and the batch's own head, at the most. */
const AROUND = 128;

/** What a request has for one partition. */
export interface PartitionRecords<R extends Records = Records> {
  readonly table: TableSchema;
  readonly partition: number;
  readonly records: R;
  bytes: number;
}

export interface RequestOptions<R extends Records> {
  /** How many bytes the message's topic takes at a time. */
  readonly limitOf: (message: OutMessage) => number;
  /** What is too large for its topic, before whatever is behind it is yielded. */
  readonly refuse: (message: OutMessage, error: PipelineError) => void;
  /** Makes the list for a partition. */
  readonly records: () => R;
}

/** What a message takes in a request, or a little less. */
export function wireBytes({key, value, headers}: Omit<OutMessage, 'table' | 'partition'>): number {
  let bytes = AROUND + value.length + (key?.length ?? 0);
  for (const name in headers) bytes += name.length + headers[name]!.length + 10;
  return bytes;
}

/**
 * Cuts messages into requests that the brokers take: of one partition no more bytes than its topic's limit. A row that
 * is larger goes without its largest values; where that is not enough it is refused.
 */
export function* inRequests<R extends Records>(
  messages: Iterable<OutMessage>,
  {limitOf, refuse, records}: RequestOptions<R>,
): Generator<PartitionRecords<R>[]> {
  let request: PartitionRecords<R>[] = [];
  let total = 0;
  /** table → partition → what the request has of it */
  const places = new Map<string, PartitionRecords<R>[]>();
  for (const whole of messages) {
    const limit = Math.min(limitOf(whole), LARGEST_MESSAGE);
    let bytes = wireBytes(whole);
    const message = bytes > limit ? withoutLargest(whole, limit) : whole;
    if (message instanceof PipelineError) {
      refuse(whole, message);
      continue;
    }
    if (message !== whole) bytes = wireBytes(message);
    const {table, partition} = message;
    let place = places.get(table.name)?.[partition];
    if (request.length > 0 && ((place?.bytes ?? 0) + bytes > limit || total + bytes > FULL_REQUEST)) {
      yield request;
      request = [];
      total = 0;
      places.clear();
      place = undefined;
    }
    if (!place) {
      place = {table, partition, records: records(), bytes: 0};
      request.push(place);
      const ofTable = places.get(table.name) ?? [];
      places.set(table.name, ofTable);
      ofTable[partition] = place;
    }
    place.records.add(message);
    place.bytes += bytes;
    total += bytes;
  }
  if (request.length > 0) yield request;
}

const OMITTED = '"__debezium_unavailable_value"';
const SOURCE = ',"source":{';

/**
 * The row without its largest values: the sink asks PostgreSQL for them, as for those that PostgreSQL did not send
 * itself. Who reads Debezium topics knows the mark that stands in their place.
 */
function withoutLargest(message: OutMessage, limit: number): OutMessage | PipelineError {
  const {table, key, value, headers} = message;
  const tail = value.subarray(value.lastIndexOf(SOURCE));
  const before = value.indexOf('{"before":{') === 0 ? String(key) : 'null';
  const rebuilt = (after: string | Buffer, more: OutMessage['headers'] = headers): OutMessage => ({
    ...message,
    value: Buffer.concat([Buffer.from(`{"before":${before},"after":`), Buffer.from(after), tail]),
    headers: more,
  });
  const refused = (): PipelineError =>
    new PipelineError(
      'kafka.message_too_large',
      `${table.name}: a row has ${value.length} bytes, its topic takes ${limit}`,
      {table: table.name},
    );
  const {[HEADER.rejects]: _, ...others} = headers;
  if (isDeletion(headers[HEADER.row] ?? '')) {
    const small = rebuilt('null', others); // of a deletion the key is enough
    return wireBytes(small) > limit ? refused() : small;
  }
  if (headers[HEADER.key] === undefined) return refused();
  const members = splitObject(rowImage(value));
  const list = <T>(header: string): T[] => JSON.parse(String(headers[header] ?? '[]')) as T[];
  const omitted = new Set(list<string>(HEADER.unchanged));
  const candidates = table.columns
    .filter(({inKey, name}) => !inKey && (members.get(name)?.length ?? 0) > OMITTED.length)
    .sort((a, b) => members.get(b.name)!.length - members.get(a.name)!.length);
  let over = wireBytes(rebuilt(joinObject(members))) - limit;
  for (const {name} of candidates) {
    if (over <= 0) break;
    over -= Buffer.byteLength(members.get(name)!) - OMITTED.length - name.length - 8; // its name goes to a header
    members.set(name, OMITTED);
    omitted.add(name);
  }
  const rejects = list<{column: string}>(HEADER.rejects).filter(({column}) => !omitted.has(column));
  const small = rebuilt(joinObject(members), {
    ...others,
    [HEADER.unchanged]: Buffer.from(JSON.stringify([...omitted])),
    [HEADER.moved]: Buffer.from('1'),
    ...(rejects.length > 0 && {[HEADER.rejects]: Buffer.from(JSON.stringify(rejects))}),
  });
  return wireBytes(small) > limit ? refused() : small;
}
