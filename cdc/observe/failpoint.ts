/**
 * Places at which a test ends the process as a power cut would. FRESHET_FAILPOINT=NAME:N kills it with SIGKILL when
 * the place is reached for the Nth time; without the setting a place costs one comparison.
 */
export type Failpoint =
  | 'snapshot.chunk'
  | 'kafka.before_send'
  | 'kafka.in_send'
  | 'kafka.after_send'
  | 'sink.before_insert'
  | 'sink.in_insert'
  | 'sink.before_commit'
  | 'sink.after_commit'
  | 'capture.before_ack';

const [name, count] = (process.env.FRESHET_FAILPOINT ?? '').split(':');
let left = Number(count ?? 1);

export function failpoint(place: Failpoint): void {
  if (place !== name) return;
  left -= 1;
  if (left <= 0) process.kill(process.pid, 'SIGKILL');
}
