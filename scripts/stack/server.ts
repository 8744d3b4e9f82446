import {spawn} from 'node:child_process';
import type {Ports} from './ports.ts';
import {StackError} from './stack-error.ts';
import type {StopStep} from './target.ts';

/** What a server may know of the stack it is part of. */
export interface Site {
  /** The server's own folder. */
  readonly dir: string;
  readonly ports: Ports;
  /** False: PostgreSQL does not wait for the disk. */
  readonly durable: boolean;
  /** Folder with PostgreSQL's programs, where the caller brings another than npm's. */
  readonly postgresBin?: string | undefined;
  /** Content of ClickHouse's users.xml, where the caller brings one. */
  readonly clickhouseUsersXml: string | undefined;
}

export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly uid?: number;
  readonly gid?: number;
}

/** One kind of server of the local stack. */
export interface ServerRow {
  readonly title: string;
  /** Creates what is missing in the folder, writes the configuration and returns the command that starts the server. */
  readonly prepare: (site: Site) => Promise<Command>;
  /** Whether it serves clients now. A rejection means no. */
  readonly ready: (site: Site) => Promise<boolean>;
  readonly stop: readonly StopStep[];
}

/** Runs a preparing command to its end; its output is in the error when it fails. */
export async function runOnce({file, args, uid, gid}: Command): Promise<void> {
  const user = uid === undefined || gid === undefined ? {} : {uid, gid};
  const child = spawn(file, args, {...user, stdio: ['ignore', 'pipe', 'pipe']});
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (output += String(chunk)));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  if (code !== 0) throw new StackError(`${file} failed (${code}):\n${output.trim()}`);
}
