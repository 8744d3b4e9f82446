import {setTimeout as sleep} from 'node:timers/promises';
import {until} from '../test-support/until.ts';
import type {Running} from './run.ts';

export interface Phase {
  readonly name: 'start' | 'snapshot' | 'streaming' | 'DDL' | 'shutdown';
  readonly environment?: Readonly<Record<string, string>>;
  /** Gets to where the fault begins. */
  reach(running: Running): Promise<void>;
  /** What is done while the fault lasts, besides the changes that go on throughout. */
  during(running: Running): Promise<void>;
}

const nothing = (): Promise<void> => Promise.resolve();
const SCHEMA_CHANGES = 4;

/** All has been read, and changes flow. */
async function streaming({start, caughtUp, workload, random}: Running): Promise<void> {
  start();
  await caughtUp();
  workload.start();
  await sleep(random.between(100, 700));
}

/** When a fault begins. */
export const PHASES: readonly Phase[] = [
  {
    name: 'start',
    reach: async ({workload}) => workload.start(),
    during: async ({start}) => start(),
  },
  {
    name: 'snapshot',
    // Many chunks, and slow enough that the fault begins among them.
    environment: {FRESHET_SNAPSHOT_CHUNK_BYTES: '65536', FRESHET_SNAPSHOT_RATE_BYTES: '600000'},
    async reach({start, workload, random, processes}) {
      start();
      workload.start();
      const reading = until(() => /reading a snapshot/.test(processes.log));
      await Promise.race([reading, processes.failed]);
      await sleep(random.between(200, 1_500));
    },
    during: nothing,
  },
  {name: 'streaming', reach: streaming, during: nothing},
  {
    name: 'DDL',
    reach: streaming,
    async during({workload, random}) {
      const first = random.between(0, 100);
      for (let i = 0; i < SCHEMA_CHANGES; i++) {
        await workload.schemaChange(first);
        await sleep(random.between(0, 150));
      }
    },
  },
  {
    name: 'shutdown',
    reach: streaming,
    async during({processes, random}) {
      await sleep(random.between(0, 60));
      await processes.stop(); // it must end although the fault does not
    },
  },
];
