// The reader of a slot that `npm run bench` takes where pg_recvlogical is missing: it throws away what it is sent.
import {type Lsn, NO_LSN} from '../../cdc/source/lsn.ts';
import {ReplicationConnection} from '../../cdc/source/replication-connection.ts';

const [connectionString = '', slot = ''] = process.argv.slice(2);
const connection = await ReplicationConnection.connect({connectionString, silenceMs: 0});
let seen: Lsn = NO_LSN;
setInterval(() => connection.sendStatus(seen), 1_000);
await connection.stream({
  slot,
  publication: slot,
  signal: new AbortController().signal,
  onData(walStart) {
    if (walStart > seen) seen = walStart;
  },
  onKeepalive(walEnd, replyRequested) {
    if (walEnd > seen) seen = walEnd;
    if (replyRequested) connection.sendStatus(seen);
  },
});
