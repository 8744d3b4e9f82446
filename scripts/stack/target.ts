import {z} from 'zod';

/** One step of ending a server: a signal (null: only wait, it ends by itself), then so long until the next step. */
const StopStep = z.object({
  signal: z.enum(['SIGTERM', 'SIGINT', 'SIGQUIT']).nullable(),
  graceMs: z.number(),
});
export type StopStep = Readonly<z.infer<typeof StopStep>>;

/** A process that leads its own group, named for good by its pid and start. */
const Target = z.object({
  name: z.string(),
  pid: z.int().positive(),
  started: z.string().nullable(),
  stop: z.array(StopStep).readonly(),
});
export type Target = Readonly<z.infer<typeof Target>>;

/** The servers of a stack, as they cross to the reaper and to a next start. */
export const Targets = z.array(Target);
