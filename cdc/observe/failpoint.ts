/**
 * Places at which a test ends the process as a power cut would. FRESHET_FAILPOINT=NAME:N kills it with SIGKILL when
 * the place is reached for the Nth time; without the setting a place costs one comparison.
 */
export type Failpoint =
  | 'snapshot.chunk'
  | 'snapshot.before_chunk_done'
  | 'kafka.before_send'
  | 'kafka.in_send'
  | 'kafka.after_send'
  | 'sink.before_insert'
  | 'sink.in_insert'
  | 'sink.before_commit'
  | 'sink.after_commit'
  | 'dead_letter.in_topic'
  | 'dead_letter.written'
  | 'capture.before_ack'
  | 'schema.in_place'
  | 'schema.before_written'
  | 'schema.written'
  | 'schema.read'
  | 'schema.shown'
  | 'rollups.before_write';

const [name, count] = (process.env.FRESHET_FAILPOINT ?? '').split(':');
let left = Number(count ?? 1);

export function failpoint(place: Failpoint): void {
  if (place !== name) return;
  left -= 1;
  if (left <= 0) process.kill(process.pid, 'SIGKILL');
}
