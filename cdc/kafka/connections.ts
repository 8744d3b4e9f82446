import {connect, isIP, type Socket} from 'node:net';
import {connect as connectTls} from 'node:tls';
import kafkajs, {type ISocketFactoryArgs, type Kafka, type KafkaConfig} from 'kafkajs';

const KEEP_ALIVE_MS = 10_000;

/** What producers, consumers and admins have in common. */
interface Client {
  readonly events: {readonly REQUEST_TIMEOUT: string};
  on(event: never, listener: () => void): unknown;
}

/**
 * A client whose connections break when one of its requests had no answer in time, and that is handed answers whole.
 * kafkajs 2.2.4 keeps a connection that does not answer, and sends each further attempt into it; and what it had got of
 * an answer when a connection broke stays before the first answer of the next one, which ends the process by a RangeError.
 */
export function onSoundConnections(config: KafkaConfig): Kafka {
  const sockets = new Set<Socket>();
  const socketFactory = ({host, port, ssl, onConnect}: ISocketFactoryArgs): Socket => {
    const name = isIP(host) ? {} : {servername: host};
    const socket = ssl
      ? connectTls({host, port, ...name, ...ssl}, onConnect)
      : connect({host, port}, onConnect);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    const on = socket.on.bind(socket) as (event: string, listener: (...given: never[]) => void) => Socket;
    socket.on = (event: string, listener: (...given: never[]) => void) =>
      on(
        event,
        event === 'data'
          ? whole(listener as (answer: Buffer) => void, error => socket.destroy(error))
          : listener,
      );
    return socket;
  };
  const breakAll = (): void => {
    // With an error: a socket that is only closed on this side is not noticed.
    for (const socket of sockets) socket.destroy(new Error('a request had no answer in time'));
  };
  const kafka = new kafkajs.Kafka({...config, socketFactory});
  const breaking =
    <O, C extends Client>(make: (options: O) => C) =>
    (options: O): C => {
      const made = make.call(kafka, options);
      made.on(made.events.REQUEST_TIMEOUT as never, breakAll);
      return made;
    };
  kafka.producer = breaking(kafka.producer);
  kafka.consumer = breaking(kafka.consumer);
  kafka.admin = breaking(kafka.admin);
  return kafka;
}

const LENGTH_BYTES = 4;

/** Gives each answer in one piece; its length stands before it. Nothing more behind one whose length is none. */
export function whole(
  take: (answer: Buffer) => void,
  refuse: (error: Error) => void,
): (piece: Buffer) => void {
  let pieces: Buffer[] = [];
  let held = 0;
  let wanted = LENGTH_BYTES;
  return piece => {
    if (wanted === Number.POSITIVE_INFINITY) return;
    pieces.push(piece);
    held += piece.length;
    while (held >= wanted) {
      const all = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces, held);
      const end = LENGTH_BYTES + all.readInt32BE(0);
      if (end < LENGTH_BYTES) {
        wanted = Number.POSITIVE_INFINITY;
        pieces = [];
        return refuse(new Error('this is no answer of Kafka'));
      }
      const complete = held >= end;
      const rest = complete ? all.subarray(end) : all;
      pieces = rest.length > 0 ? [rest] : [];
      held = rest.length;
      wanted = complete ? LENGTH_BYTES : end;
      if (complete) take(all.subarray(0, end));
    }
  };
}
