import {PipelineError} from '../failures.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const LIST = 0x5b;
const LIST_END = 0x5d;

const BEFORE = '{"before":';
const AFTER = Buffer.from(',"after":');
const BEHIND_ROW = Buffer.from('},"after":');
const SOURCE = Buffer.from(',"source":{');

/**
 * The bytes of the row image in an envelope of ours, `after`. In JSON `,"after":` cannot
 * stand inside a string, whose quotes would be escaped, and a column of that name does not stand behind `}`: no value
 * is an object. So the image is found without parsing. Throws `kafka.bad_message` where it is not there.
 */
export function rowImage(value: Buffer): Buffer {
  const after = value[BEFORE.length] === OPEN ? value.indexOf(BEHIND_ROW) + 1 : value.indexOf(AFTER);
  const start = after + AFTER.length;
  const end = value.indexOf(SOURCE, after + 1);
  if (after < BEFORE.length || end < 0 || value[start] !== OPEN || value[end - 1] !== CLOSE) {
    throw new PipelineError('kafka.bad_message', 'an envelope without its row image');
  }
  return value.subarray(start, end);
}

/** Behind a string's closing quote. */
function skipString(json: Buffer, at: number): number {
  for (let i = at + 1; i < json.length; i++) {
    if (json[i] === BACKSLASH) i++;
    else if (json[i] === QUOTE) return i + 1;
  }
  throw new PipelineError('kafka.bad_message', 'a JSON string without an end');
}

/** The members of a flat JSON object (values may be arrays), each value as its own bytes: nothing is rounded. */
export function splitObject(json: Buffer): Map<string, string> {
  const members = new Map<string, string>();
  let at = 1;
  while (json[at] !== CLOSE) {
    if (json[at] === COMMA) at++;
    const keyEnd = skipString(json, at);
    const name = String(JSON.parse(json.toString('utf8', at, keyEnd)));
    if (json[keyEnd] !== COLON) throw new PipelineError('kafka.bad_message', 'a JSON member without a value');
    let depth = 0;
    let end = keyEnd + 1;
    for (; end < json.length; end++) {
      const byte = json[end];
      if (byte === QUOTE) end = skipString(json, end) - 1;
      else if (byte === LIST) depth++;
      else if (byte === LIST_END) depth--;
      else if (depth === 0 && (byte === COMMA || byte === CLOSE)) break;
    }
    if (end >= json.length) throw new PipelineError('kafka.bad_message', 'a JSON object without an end');
    members.set(name, json.toString('utf8', keyEnd + 1, end));
    at = end;
  }
  return members;
}

export function joinObject(members: ReadonlyMap<string, string>): Buffer {
  return Buffer.from(
    `{${[...members].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',')}}`,
  );
}
