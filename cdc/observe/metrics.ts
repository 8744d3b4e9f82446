import {Counter, Gauge, Histogram, Registry} from 'prom-client';

/** All metrics of the process, each with how to read it. /metrics serves them. */
export const registry = new Registry();
const registers = [registry];

export const metrics = {
  changes: new Counter({
    name: 'freshet_changes_total',
    help: 'Row changes decoded from the slot',
    labelNames: ['table'],
    registers,
  }),
  snapshotRows: new Counter({
    name: 'freshet_snapshot_rows_total',
    help: 'Rows read by snapshots',
    labelNames: ['table'],
    registers,
  }),
  transactions: new Counter({
    name: 'freshet_transactions_total',
    help: 'Transactions whose changes are durable',
    registers,
  }),
  publishSeconds: new Histogram({
    name: 'freshet_publish_seconds',
    help: 'Time until a batch was durable in the transport',
    registers,
  }),
  captureBufferBytes: new Gauge({
    name: 'freshet_capture_buffer_bytes',
    help: 'Memory of decoded changes; near FRESHET_BUFFER_BYTES, what follows is the slow part',
    registers,
  }),
  spilledBytes: new Gauge({
    name: 'freshet_spilled_bytes',
    help: 'Changes of open transactions that wait in files for their commit (FRESHET_PG_STREAMING)',
    registers,
  }),
  retainedBytes: new Gauge({
    name: 'freshet_slot_retained_bytes',
    help: 'WAL that PostgreSQL keeps for the slot; alarm before max_slot_wal_keep_size',
    registers,
  }),
  slotSafeBytes: new Gauge({
    name: 'freshet_slot_safe_bytes',
    help: 'Bytes of WAL until the slot is lost; +Inf without max_slot_wal_keep_size',
    registers,
  }),
  slotSecondsToLoss: new Gauge({
    name: 'freshet_slot_seconds_to_loss',
    help: 'Until the slot is lost at the rate of the last two minutes; +Inf where it does not come to that',
    registers,
  }),
  rowsVisible: new Counter({
    name: 'freshet_rows_visible_total',
    help: 'Row images made visible in ClickHouse',
    labelNames: ['table'],
    registers,
  }),
  insertSeconds: new Histogram({
    name: 'freshet_insert_seconds',
    help: 'Time of one insert, retries included',
    registers,
  }),
  rollupSeconds: new Histogram({
    name: 'freshet_rollup_seconds',
    help: 'Time of one run that brings the rollups up to what was written',
    registers,
  }),
  rollupDifferences: new Counter({
    name: 'freshet_rollup_differences_total',
    help: 'Buckets of rollups that were not what FINAL says, and were computed anew; should stay 0',
    labelNames: ['rollup'],
    registers,
  }),
  sinkBufferBytes: new Gauge({
    name: 'freshet_sink_buffer_bytes',
    help: 'Memory of rows waiting for ClickHouse; with that of capture FRESHET_BUFFER_BYTES at most',
    registers,
  }),
  lagSeconds: new Gauge({
    name: 'freshet_lag_seconds',
    help: 'Visible time minus commit time of the newest row of the last insert',
    labelNames: ['table'],
    registers,
  }),
  parked: new Gauge({
    name: 'freshet_table_parked',
    help: '1 where a table is set aside; `freshet status` says why',
    labelNames: ['table'],
    registers,
  }),
  deadLetters: new Counter({
    name: 'freshet_dead_letters_total',
    help: 'Messages that could not be applied; `freshet dead-letter list` shows them',
    labelNames: ['table'],
    registers,
  }),
  restarts: new Counter({
    name: 'freshet_restarts_total',
    help: 'Restarts of a stage after a failure that is retried',
    labelNames: ['stage'],
    registers,
  }),
} as const;
