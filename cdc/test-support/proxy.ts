import {once} from 'node:events';
import {connect, createServer, type Socket} from 'node:net';
import {whole} from '../kafka/connections.ts';
import type {Scope} from './start-pipeline.ts';

/**
 * What goes wrong with a request that matches: it waits until `release`; its answer does; its connection breaks before
 * the server has it; the server does it, but the answer gets lost; or it arrives as another one.
 */
export type Fault = 'hold' | 'hold answer' | 'cut' | 'lose answer' | ((request: string) => string);

export interface Caught {
  /** How often it has happened. */
  readonly count: number;
  /** Resolves when it has happened so often. */
  times(count: number): Promise<void>;
  /** Lets go of what is held, and of all that follows. */
  release(): void;
}

export interface Proxy {
  /** The server's URL by way of the proxy. */
  readonly url: string;
  /**
   * From now on: the fault for what the client sends where the pattern is found in one piece of it (a request's first
   * line and headers are). `most` times; for ever by default.
   */
  on(pattern: RegExp, fault: Fault, most?: number): Caught;
  /** Called with each piece that the client sends. */
  watch(look: (piece: Buffer) => void): void;
  /** Breaks all connections that are open. */
  cut(): void;
}

interface Rule {
  readonly pattern: RegExp;
  readonly fault: Fault;
  readonly released: Promise<void>;
  left: number;
  hit(): void;
}

/** https://kafka.apache.org/protocol#protocol_api_keys */
const KAFKA_APIS = {produce: 0, fetch: 1, metadata: 3};

/** Finds Kafka's requests by what they do, which stands behind their length. */
export const kafkaRequest = (api: keyof typeof KAFKA_APIS): RegExp =>
  new RegExp(`^.{4}\0${String.fromCharCode(KAFKA_APIS[api])}`, 's');

/**
 * A network that can be faulty, in front of a server: TCP on a free port of 127.0.0.1. In front of a broker
 * (`kafka://127.0.0.1:9092`) clients come by it with each connection.
 */
export async function startProxy(t: Scope, serverUrl: string): Promise<Proxy> {
  const target = new URL(serverUrl);
  const url = new URL(serverUrl);
  const rules: Rule[] = [];
  const looks: ((piece: Buffer) => void)[] = [];
  const sockets = new Set<Socket>();
  const carry = (client: Socket): void => {
    const server = connect(Number(target.port), target.hostname);
    const both = [client, server];
    for (const socket of both) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        for (const one of both) one.destroy();
      });
    }
    let answers: Promise<void> = Promise.resolve();
    let lost = false;
    const toServer = async (piece: Buffer): Promise<void> => {
      for (const look of looks) look(piece);
      const rule = rules.find(({left, pattern}) => left > 0 && pattern.test(piece.toString('latin1')));
      if (rule) {
        rule.left -= 1;
        if (rule.fault === 'hold answer') answers = rule.released;
        else if (rule.fault === 'lose answer') lost = true;
        rule.hit();
        if (rule.fault === 'cut') client.destroy();
        if (rule.fault === 'hold') await rule.released;
      }
      const sent =
        typeof rule?.fault === 'function'
          ? Buffer.from(rule.fault(piece.toString('latin1')), 'latin1')
          : piece;
      if (!server.destroyed) server.write(sent);
    };
    const toClient = async (piece: Buffer): Promise<void> => {
      await answers;
      if (lost) client.destroy();
      else if (!client.destroyed) client.write(piece);
    };
    forward(client, toServer);
    if (url.protocol === 'kafka:') {
      const [theirs, ours] = [Number(target.port), Number(url.port)];
      forwardAnswers(server, {host: target.hostname, theirs, ours}, toClient);
    } else forward(server, toClient);
  };
  const listener = createServer(carry).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  url.hostname = '127.0.0.1';
  url.port = String(address.port);
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  t.teardown(() => {
    listener.close();
    cut();
  });
  return {
    url: url.href,
    cut,
    watch: look => looks.push(look),
    on(pattern, fault, most = Number.POSITIVE_INFINITY) {
      const {promise: released, resolve} = Promise.withResolvers<void>();
      let count = 0;
      let waiting: {count: number; done: () => void}[] = [];
      const rule: Rule = {
        pattern,
        fault,
        released,
        left: most,
        hit() {
          count += 1;
          for (const one of waiting) if (one.count <= count) one.done();
          waiting = waiting.filter(one => one.count > count);
        },
      };
      rules.push(rule);
      const release = (): void => {
        rule.left = 0;
        resolve();
      };
      t.teardown(release); // a test that fails must not hold up the end of its pipeline
      return {
        get count() {
          return count;
        },
        times: wanted =>
          new Promise(done => {
            if (count >= wanted) done();
            else waiting.push({count: wanted, done});
          }),
        release,
      };
    },
  };
}

/** Piece by piece, in order; while one waits no more is read. */
export function forward(from: Socket, pass: (piece: Buffer) => Promise<void>): void {
  from.on('data', piece => {
    from.pause();
    pass(piece).then(() => from.resume());
  });
}

/** Kafka's, answer by answer. They name the address that the client is to connect to: it becomes ours, which is as long. */
export function forwardAnswers(
  from: Socket,
  {host, theirs, ours}: {host: string; theirs: number; ours: number},
  pass: (answer: Buffer) => Promise<void>,
): void {
  const [before, after] = [theirs, ours].map(port => {
    const address = Buffer.alloc(host.length + 4);
    address.write(host, 'latin1');
    address.writeInt32BE(port, host.length);
    return address;
  });
  let answers: Buffer[] = [];
  const push = whole(
    answer => answers.push(answer),
    error => from.destroy(error),
  );
  forward(from, async piece => {
    push(piece);
    const complete = answers;
    answers = [];
    for (const answer of complete) {
      for (let at = answer.indexOf(before!); at >= 0; at = answer.indexOf(before!, at + 1))
        after!.copy(answer, at);
      await pass(answer);
    }
  });
}
