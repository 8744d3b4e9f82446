import {pino} from 'pino';

/** The part of pino's logger that the pipeline uses. Objects come first, as with pino. */
export interface Log {
  debug(facts: object, message: string): void;
  info(facts: object, message: string): void;
  warn(facts: object, message: string): void;
  error(facts: object, message: string): void;
}

/** JSON lines on stderr; what could be a password is taken out of URLs. */
export function createLog(level: string): Log {
  return pino(
    {
      level,
      base: {},
      formatters: {level: label => ({level: label}), log: withoutSecretFacts},
      timestamp: pino.stdTimeFunctions.isoTime,
      hooks: {
        logMethod(args, method) {
          const clean = args.map(part => (typeof part === 'string' ? withoutSecrets(part) : part));
          method.apply(this, clean as Parameters<typeof method>);
        },
      },
    },
    pino.destination({dest: 2, sync: true}),
  );
}

const withoutSecretFacts = (facts: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(facts).map(([name, fact]) => [
      name,
      typeof fact === 'string' ? withoutSecrets(fact) : fact,
    ]),
  );

/** 'postgres://user:secret@host' → 'postgres://user:***@host'; the last @ ends the password, as in a URL. */
export const withoutSecrets = (text: string): string =>
  text.replace(/(\/\/[^/:@\s]*:)[^\s/?#]*(?=@)/g, '$1***').replace(/(password=)\S+/gi, '$1***');
