import {connect, createServer} from 'node:net';
import {StackError} from './stack-error.ts';

/** Every port of the local stack; `next` takes the next free one when the default is in use. */
export const PORTS = {
  postgres: {title: 'PostgreSQL', setting: 'FRESHET_STACK_POSTGRES_PORT', port: 5432, next: true},
  kafka: {title: 'Kafka', setting: 'FRESHET_STACK_KAFKA_PORT', port: 9092, next: false},
  clickhouseHttp: {
    title: 'ClickHouse (HTTP)',
    setting: 'FRESHET_STACK_CLICKHOUSE_HTTP_PORT',
    port: 8123,
    next: false,
  },
  clickhouseNative: {
    title: 'ClickHouse (native)',
    setting: 'FRESHET_STACK_CLICKHOUSE_NATIVE_PORT',
    port: 9000,
    next: false,
  },
} as const;

export type PortName = keyof typeof PORTS;
export type Ports = Readonly<Record<PortName, number>>;
const names = Object.keys(PORTS) as PortName[];

/**
 * The ports that FRESHET_STACK_*_PORT ask for (0 = any free one); names that are not set are left out.
 * @throws StackError naming the variable whose value is no port
 */
export function stackPortsFromEnv(env: Readonly<Record<string, string | undefined>>): Partial<Ports> {
  return Object.fromEntries(
    names.flatMap(name => {
      const {setting} = PORTS[name];
      const value = env[setting];
      if (value === undefined || value === '') return [];
      if (!/^\d{1,5}$/.test(value) || Number(value) > 65_535) {
        throw new StackError(`${setting} is '${value}': a port is a number from 0 (any free one) to 65535`);
      }
      return [[name, Number(value)]];
    }),
  );
}

/**
 * Settles every port: what was asked for, else the default.
 * @throws StackError when a fixed port is in use
 */
export async function settlePorts(asked: Partial<Ports>, kafka: boolean): Promise<Ports> {
  const ports = {postgres: 0, kafka: 0, clickhouseHttp: 0, clickhouseNative: 0};
  for (const name of names) if (kafka || name !== 'kafka') ports[name] = await settle(name, asked[name]);
  return ports;
}

async function settle(name: PortName, asked: number | undefined): Promise<number> {
  const {title, setting, port: standard, next} = PORTS[name];
  const port = asked ?? standard;
  if (port === 0) return anyFreePort();
  if (!(await inUse(port))) return port;
  const last = port + 100;
  for (let other = port + 1; asked === undefined && next && other < last; other++) {
    if (!(await inUse(other))) return other;
  }
  throw new StackError(
    `port ${port} is in use and ${title} needs it: end what uses it, or set ${setting} to another port (0 = any free one)`,
  );
}

/** A port that nothing listens on at this moment. */
export async function anyFreePort(): Promise<number> {
  const server = await listen(0);
  const address = server?.address();
  await new Promise(resolve => (server ? server.close(resolve) : resolve(null)));
  if (typeof address !== 'object' || !address) throw new StackError('no port is free on 127.0.0.1');
  return address.port;
}

/** Listening alone does not tell on macOS: a listener on every address lets another in on 127.0.0.1. */
async function inUse(port: number): Promise<boolean> {
  if (await answers(port)) return true;
  const server = await listen(port);
  await new Promise(resolve => (server ? server.close(resolve) : resolve(null)));
  return server === null;
}

function listen(port: number) {
  return new Promise<ReturnType<typeof createServer> | null>(resolve => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen({port, host: '127.0.0.1', exclusive: true}, () => resolve(server));
  });
}

/** Whether something accepts connections on this port of 127.0.0.1. */
export function answers(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1');
    const done = (open: boolean) => {
      socket.destroy();
      resolve(open);
    };
    socket.once('connect', () => done(true)).once('error', () => done(false));
  });
}
