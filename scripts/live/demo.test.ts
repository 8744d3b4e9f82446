import test from 'ava';
import {loadSettings} from '../../cdc/settings/settings.ts';
import {withoutOtherServers} from './demo.ts';

test('the demo takes no server, user or certificate from the environment, but what tunes the pipeline', t => {
  const own = {FRESHET_PG_URL: 'postgres://demo@127.0.0.1/shop', FRESHET_KAFKA_BROKERS: '127.0.0.1:9092'};
  const given = {
    FRESHET_CONFIG: 'my.env',
    FRESHET_PG_TLS: 'verify',
    FRESHET_PG_PASSWORD_FILE: '/run/secrets/pg',
    FRESHET_KAFKA_TLS: 'true',
    FRESHET_KAFKA_SASL_MECHANISM: 'plain',
    FRESHET_TOPIC_REPLICATION: '3',
    FRESHET_CLICKHOUSE_USER: 'freshet',
    FRESHET_CLICKHOUSE_PASSWORD_FILE: '/run/secrets/ch',
    FRESHET_TABLES_INCLUDE: 'billing.*',
    FRESHET_FLUSH_MS: '50',
  };
  t.deepEqual(
    loadSettings({...withoutOtherServers(given), ...own}),
    loadSettings({...own, FRESHET_FLUSH_MS: '50'}),
  );
});
