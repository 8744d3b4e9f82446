import {once} from 'node:events';
import {connect, createServer, type Server, type Socket} from 'node:net';
import {setTimeout as sleep} from 'node:timers/promises';
import type {Random} from '../../scripts/shop/random.ts';
import {forward, forwardAnswers} from '../test-support/proxy.ts';

/**
 * What the network does. `refuse`: breaks what is open and takes no connection. `reset`: answers whatever is sent with
 * RST. `black hole`: holds everything back, and delivers it when it ends, as TCP does. `forget`: connections that were
 * open or opened meanwhile never hear anything again, in either direction, and nobody is told. `slow`: small pieces,
 * late. `cut`: now and then half of an answer, then RST. `lose answer`: the server gets the request, now and then its
 * answer is replaced by RST. `no memory`: ClickHouse is told to have none for any query.
 */
export type Weather =
  | 'fine'
  | 'refuse'
  | 'reset'
  | 'black hole'
  | 'forget'
  | 'slow'
  | 'cut'
  | 'lose answer'
  | 'no memory';

const SLOW_PIECE = 4096;
const SLOW_MS = 25;
/** How often an answer is broken: work goes on between, and is then in every state. */
const BROKEN = 0.3;

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  forgotten: boolean;
}

export interface NetworkOptions {
  readonly host: string;
  readonly port: number;
  readonly random: Random;
  /** Kafka's answers name the address that the client is to connect to: it becomes this one. */
  readonly kafka?: boolean;
}

/** The network between a pipeline and one server: TCP on a port of 127.0.0.1. */
export class Network {
  readonly #options: NetworkOptions;
  readonly #links = new Set<Link>();
  #listener: Server | undefined;
  #port = 0;
  #weather: Weather = 'fine';
  #changed = Promise.withResolvers<void>();
  /** Bytes that the server has sent through it, which proves that the pipeline is behind it. */
  carried = 0;

  private constructor(options: NetworkOptions) {
    this.#options = options;
  }

  static async start(options: NetworkOptions): Promise<Network> {
    const network = new Network(options);
    await network.#listen();
    return network;
  }

  get port(): number {
    return this.#port;
  }

  async set(weather: Weather): Promise<void> {
    this.#weather = weather;
    const changed = this.#changed;
    this.#changed = Promise.withResolvers();
    if (weather === 'refuse') {
      this.#listener?.close();
      this.#listener = undefined;
      this.#each(link => end(link));
    } else if (!this.#listener) await this.#listen();
    if (weather === 'reset') this.#each(link => end(link, true));
    if (weather === 'forget')
      this.#each(link => {
        link.forgotten = true;
      });
    changed.resolve();
  }

  async close(): Promise<void> {
    this.#listener?.close();
    this.#each(link => end(link));
  }

  #each(act: (link: Link) => void): void {
    for (const link of [...this.#links]) act(link);
  }

  async #listen(): Promise<void> {
    const listener = createServer(client => this.#carry(client)).listen(this.#port, '127.0.0.1');
    this.#listener = listener;
    await once(listener, 'listening');
    const address = listener.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    this.#port = address.port;
  }

  #carry(client: Socket): void {
    const {host, port, kafka} = this.#options;
    const server = connect(port, host);
    const link: Link = {client, server, forgotten: this.#weather === 'forget'};
    this.#links.add(link);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      socket.on('error', () => {});
      socket.on('close', () => {
        // A network that has forgotten a connection does not pass on its end either.
        if (!link.forgotten) other.destroy();
        if (client.destroyed && server.destroyed) this.#links.delete(link);
      });
    }
    forward(client, piece => this.#request(link, piece));
    const answer = (piece: Buffer): Promise<void> => this.#answer(link, piece);
    if (kafka) forwardAnswers(server, {host, theirs: port, ours: this.#port}, answer);
    else forward(server, answer);
  }

  async #request(link: Link, piece: Buffer): Promise<void> {
    await this.#pass(link, piece.length);
    if (link.forgotten) return;
    if (this.#weather === 'reset') return end(link, true);
    const sent = this.#weather === 'no memory' ? withoutMemory(piece) : piece;
    if (!link.server.destroyed) link.server.write(sent);
  }

  async #answer(link: Link, piece: Buffer): Promise<void> {
    await this.#pass(link, piece.length);
    if (link.forgotten) return;
    const broken = this.#options.random.chance(BROKEN);
    if (this.#weather === 'lose answer' && broken) return end(link, true);
    if (this.#weather === 'cut' && broken) {
      link.client.write(piece.subarray(0, piece.length >> 1), () => end(link, true));
      return;
    }
    this.carried += piece.length;
    if (!link.client.destroyed) link.client.write(piece);
  }

  /** Resolves when the piece may go on. */
  async #pass(link: Link, bytes: number): Promise<void> {
    while (this.#weather === 'black hole' && !link.client.destroyed) await this.#changed.promise;
    if (this.#weather === 'slow') await sleep(SLOW_MS * Math.ceil(bytes / SLOW_PIECE));
  }
}

function end({client, server}: Link, abruptly = false): void {
  for (const socket of [client, server]) {
    if (abruptly && !socket.destroyed) socket.resetAndDestroy();
    else socket.destroy();
  }
}

/** ClickHouse itself then refuses: MEMORY_LIMIT_EXCEEDED (241). The settings are in the URL of each request. */
const withoutMemory = (piece: Buffer): Buffer =>
  Buffer.from(
    piece
      .toString('latin1')
      .replace('async_insert=0', 'async_insert=0&max_memory_usage=1&max_untracked_memory=1'),
    'latin1',
  );
