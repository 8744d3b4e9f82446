import type {ExecutionContext, TestFn} from 'ava';
import pg from 'pg';
import {type Running, startPipeline} from './start-pipeline.ts';

/** A case's own corner of a shared pipeline. */
export interface Corner extends Pick<Running, 'query' | 'caughtUp' | 'ch' | 'settings'> {
  /** A connection whose search path is the case's schema. */
  readonly pg: pg.Client;
  readonly schema: string;
}

export interface Shared {
  /**
   * To be called beside the tests, not in one: tables of a schema of its own, made before the pipeline starts. In
   * queries `{an}.x` and `{cdc}.x` stand for view and target of its table x; `{cdc}._x` is the pipeline's own.
   */
  corner(ddl: string): (t: ExecutionContext) => Promise<Corner>;
}

/** One pipeline for all tests of a file: most cases need nothing of it but tables of their own. */
export function sharePipeline(test: TestFn, overrides: Record<string, string> = {}): Shared {
  const ddls: string[] = [];
  const undo: (() => unknown)[] = [];
  let running: Running;
  test.before(async () => {
    const sql = ddls.map((ddl, i) => `CREATE SCHEMA c${i}; SET search_path = c${i}; ${ddl};`).join('\n');
    const environment = {FRESHET_TABLES_INCLUDE: 'c*.*', ...overrides};
    running = await startPipeline({teardown: step => undo.unshift(step)}, sql, environment);
    await running.caughtUp();
  });
  test.after.always(async () => {
    for (const step of undo) await step();
  });
  return {
    corner(ddl) {
      const schema = `c${ddls.push(ddl) - 1}`;
      return async t => {
        const url = new URL(running.settings.FRESHET_PG_URL);
        url.searchParams.set('options', `-c search_path=${schema}`);
        const client = new pg.Client(url.href);
        await client.connect();
        t.teardown(() => client.end());
        const {query, caughtUp, ch, settings} = running;
        const named = (text: string): string =>
          text.replaceAll('{an}.', `{an}.${schema}__`).replaceAll(/\{cdc\}\.(?!_)/g, `{cdc}.${schema}__`);
        return {pg: client, schema, query: text => query(named(text)), caughtUp, ch, settings};
      };
    },
  };
}
