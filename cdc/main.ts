#!/usr/bin/env node
import {createLog} from './observe/log.ts';
import {run} from './pipeline.ts';
import {loadSettings} from './settings/settings.ts';

const settings = loadSettings(process.env);
const stop = new AbortController();
process.on('SIGINT', () => stop.abort());
process.on('SIGTERM', () => stop.abort());
await run({
  settings,
  log: createLog(settings.FRESHET_LOG_LEVEL),
  signal: stop.signal,
  onProgress: p => console.error(JSON.stringify(p)),
});
