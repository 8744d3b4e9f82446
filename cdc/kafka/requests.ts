import {PipelineError} from '../failures.ts';
import {joinObject, rowImage, splitObject} from '../sink/row-json.ts';
import {HEADER, type OutMessage} from './message.ts';

/** Brokers hang up on a request of more than 100 MiB (`socket.request.max.bytes`), whatever the topic takes. */
const LARGEST_MESSAGE = 96 << 20;
/** A request has more than one message up to here: kafkajs holds it several times over while it is written. */
const FULL_REQUEST = 4 << 20;
/** Lengths, offsets and the batch's own head, at the most. */
const AROUND = 128;

/** What a message takes in a request, or a little less. */
export function wireBytes({key, value, headers}: Omit<OutMessage, 'table' | 'partition'>): number {
  let bytes = AROUND + value.length + (key?.length ?? 0);
  for (const [name, held] of Object.entries(headers)) bytes += name.length + Buffer.byteLength(held) + 10;
  return bytes;
}

/**
 * Cuts messages into requests that the brokers take: of one partition no more bytes than its topic's limit. A row that
 * is larger goes without its largest values; where that is not enough it goes to `refuse`, before whatever is behind it
 * is yielded.
 */
export function* inRequests(
  messages: Iterable<OutMessage>,
  limitOf: (message: OutMessage) => number,
  refuse: (message: OutMessage, error: PipelineError) => void,
): Generator<OutMessage[]> {
  let request: OutMessage[] = [];
  let total = 0;
  let ofPartition = new Map<string, number>();
  for (const whole of messages) {
    const limit = Math.min(limitOf(whole), LARGEST_MESSAGE);
    const message = wireBytes(whole) > limit ? withoutLargest(whole, limit) : whole;
    if (message instanceof PipelineError) {
      refuse(whole, message);
      continue;
    }
    const bytes = wireBytes(message);
    const place = `${message.partition} ${message.table.name}`;
    const before = ofPartition.get(place) ?? 0;
    if (request.length > 0 && (before + bytes > limit || total + bytes > FULL_REQUEST)) {
      yield request;
      request = [];
      total = 0;
      ofPartition = new Map();
    }
    request.push(message);
    total += bytes;
    ofPartition.set(place, (ofPartition.get(place) ?? 0) + bytes);
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
  if (String(headers[HEADER.row]).includes('"_is_deleted":1')) {
    const small = rebuilt('null', others); // of a deletion the key is enough
    return wireBytes(small) > limit ? refused() : small;
  }
  if (headers[HEADER.key] === undefined) return refused();
  const members = splitObject(rowImage(value, false));
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
    [HEADER.unchanged]: JSON.stringify([...omitted]),
    [HEADER.moved]: '1',
    ...(rejects.length > 0 && {[HEADER.rejects]: JSON.stringify(rejects)}),
  });
  return wireBytes(small) > limit ? refused() : small;
}
