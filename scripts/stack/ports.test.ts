import test from 'ava';
import {stackPortsFromEnv} from './ports.ts';

test('ports come from the environment; what is not set is left out', t => {
  t.deepEqual(stackPortsFromEnv({}), {});
  t.deepEqual(
    stackPortsFromEnv({
      FRESHET_STACK_POSTGRES_PORT: '0',
      FRESHET_STACK_KAFKA_PORT: '19092',
      FRESHET_STACK_CLICKHOUSE_HTTP_PORT: '65535',
      FRESHET_STACK_CLICKHOUSE_NATIVE_PORT: '',
    }),
    {postgres: 0, kafka: 19_092, clickhouseHttp: 65_535},
  );
});

for (const value of ['x', '-1', '65536', '80.5', ' 80']) {
  test(`'${value}' is no port`, t => {
    t.throws(() => stackPortsFromEnv({FRESHET_STACK_KAFKA_PORT: value}), {
      name: 'StackError',
      message: `FRESHET_STACK_KAFKA_PORT is '${value}': a port is a number from 0 (any free one) to 65535`,
    });
  });
}
