import type {Log} from '../observe/log.ts';

interface Entry {
  readonly level: keyof Log;
  readonly message: string;
  readonly facts: Readonly<Record<string, unknown>>;
}

/** A log that prints nothing and keeps what it was told. */
export function quietLog(): Log & {readonly entries: readonly Entry[]} {
  const entries: Entry[] = [];
  const at =
    (level: keyof Log) =>
    (facts: object, message: string): void => {
      entries.push({level, message, facts: {...facts}});
    };
  return {entries, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error')};
}
