import {createHash} from 'node:crypto';
import {chLiteral, chName, RIGHT_AGGREGATES} from '../cdc/sink/clickhouse.ts';

interface Limit {
  value: number;
  /** How far the user may change it; without either it stays as it is for a read-only user. */
  min?: number;
  max?: number;
}

interface Access {
  what: string;
  /** Takes the grants, so that people can be given the role under their own names. */
  role: string;
  grants(db: {cdc: string; analytics: string}): string[];
  /** 0 writes, 1 reads under fixed settings, 2 reads and may change settings within their limits. */
  readonly: 0 | 1 | 2;
  limits: Record<string, Limit>;
  /** Settings that a user of `readonly` 1 may set all the same. */
  changeable: string[];
  /** What one user may use in an hour. */
  hourly: Record<string, number>;
}

const GB = 1_000_000_000;
/** Behind what writes the tables and the rollups: sixteen readers would make those wait for ten seconds. */
const READERS_NICE = 19;
const DDL = 'SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE, SHOW';

/**
 * Who may do what: the one source of the SQL for real servers and the XML for the local one. Views run with the
 * rights of the user that migrates, so whoever reads them needs no right on the tables behind them.
 */
export const ACCESS = {
  freshet: {
    what: 'the pipeline: writes rows, makes tables and views',
    role: 'freshet_writer',
    grants: ({cdc, analytics}) => [
      `${DDL} ON ${cdc}.*`,
      `${DDL} ON ${analytics}.*`,
      // Asked for where table_engines_require_grant is on.
      'TABLE ENGINE ON MergeTree',
      'TABLE ENGINE ON ReplacingMergeTree',
      'SELECT ON system.parts',
      'SELECT ON system.processes',
    ],
    readonly: 0,
    limits: {},
    changeable: [],
    hourly: {},
  },
  grafana: {
    what: 'dashboards: reads the views',
    role: 'freshet_dashboards',
    grants: ({analytics}) => [`SELECT ON ${analytics}.*`],
    readonly: 1,
    limits: {
      max_execution_time: {value: 30, min: 1, max: 120},
      max_memory_usage: {value: 4 * GB},
      max_rows_to_read: {value: 1_000_000_000},
      max_result_rows: {value: 200_000},
      max_concurrent_queries_for_user: {value: 40},
      os_thread_priority: {value: READERS_NICE},
      compile_aggregate_expressions: {value: RIGHT_AGGREGATES.compile_aggregate_expressions},
    },
    // The plugin sends the time limit with every query, and ad-hoc filters as additional_table_filters.
    changeable: ['max_execution_time', 'additional_table_filters'],
    hourly: {queries: 100_000, execution_time: 7200},
  },
  explorer: {
    what: 'analysts: read everything; a careless query ends before it hurts anyone',
    role: 'freshet_explorer',
    grants: ({cdc, analytics}) => [`SELECT, SHOW ON ${analytics}.*`, `SELECT, SHOW ON ${cdc}.*`],
    readonly: 2,
    limits: {
      max_execution_time: {value: 60, min: 1, max: 300},
      max_memory_usage: {value: 2 * GB, min: 1, max: 4 * GB},
      max_rows_to_read: {value: 2_000_000_000, min: 1, max: 10_000_000_000},
      max_result_rows: {value: 1_000_000, min: 1, max: 10_000_000},
      max_bytes_before_external_group_by: {value: GB},
      max_bytes_before_external_sort: {value: GB},
      max_concurrent_queries_for_user: {value: 4, min: 1, max: 4},
      // Above 0: steps back while queries of a lower number run.
      priority: {value: 10, min: 10, max: 100},
      os_thread_priority: {value: READERS_NICE},
      compile_aggregate_expressions: {value: RIGHT_AGGREGATES.compile_aggregate_expressions},
    },
    changeable: [],
    hourly: {queries: 2000, execution_time: 3600},
  },
} as const satisfies Record<string, Access>;

export type AccessUser = keyof typeof ACCESS;

export interface AccessOptions {
  databases: {cdc: string; analytics: string};
  /** In plain text; only their SHA-256 leaves these functions. */
  passwords: Record<AccessUser, string>;
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');
const users = Object.entries(ACCESS) as [AccessUser, Access][];
const quoted = ({databases: {cdc, analytics}}: AccessOptions) => ({
  cdc: chName(cdc),
  analytics: chName(analytics),
});

/**
 * SQL for a server that keeps its users itself: run it as an administrator (`access_management`), again after
 * any change. Statements end with `;`; `onCluster` is the name after ON CLUSTER.
 */
export function accessSql(options: AccessOptions & {onCluster?: string}): string {
  const on = options.onCluster ? ` ON CLUSTER ${chName(options.onCluster)}` : '';
  return users
    .flatMap(([user, access]) => {
      const password = `IDENTIFIED WITH sha256_hash BY ${chLiteral(sha256(options.passwords[user]))}`;
      const settings = [`readonly = ${access.readonly}`, ...settingsOf(access)].join(', ');
      const hourly = Object.entries(access.hourly).map(([name, most]) => `${name} = ${most}`);
      return [
        `-- ${user}: ${access.what}`,
        `CREATE ROLE IF NOT EXISTS ${access.role}${on};`,
        ...access.grants(quoted(options)).map(grant => `GRANT${on} ${grant} TO ${access.role};`),
        `CREATE SETTINGS PROFILE OR REPLACE ${access.role}${on} SETTINGS ${settings} TO ${access.role};`,
        `CREATE USER IF NOT EXISTS ${user}${on} ${password};`,
        `ALTER USER ${user}${on} ${password};`,
        `GRANT${on} ${access.role} TO ${user};`,
        ...(hourly.length > 0
          ? [
              `CREATE QUOTA OR REPLACE ${access.role}${on} KEYED BY user_name FOR INTERVAL 1 hour MAX ${hourly.join(', ')} TO ${access.role};`,
            ]
          : []),
        '',
      ];
    })
    .join('\n');
}

function settingsOf(access: Access): string[] {
  const names = new Set([...Object.keys(access.limits), ...access.changeable]);
  return [...names].map(name => {
    const {value, min, max} = access.limits[name] ?? {};
    return [
      name,
      value === undefined ? '' : ` = ${value}`,
      min === undefined ? '' : ` MIN ${min}`,
      max === undefined ? '' : ` MAX ${max}`,
      access.changeable.includes(name) ? ' CHANGEABLE_IN_READONLY' : '',
    ].join('');
  });
}

/**
 * users.xml for a server whose users come from a file, such as the local one. `default` is an administrator
 * without a password and only from this machine.
 */
export function usersXml(options: AccessOptions): string {
  const profiles = users.map(([, access]) => {
    const values = [tag('readonly', access.readonly)];
    const constraints: string[] = [];
    for (const name of new Set([...Object.keys(access.limits), ...access.changeable])) {
      const {value, min, max} = access.limits[name] ?? {};
      if (value !== undefined) values.push(tag(name, value));
      const rules = [
        min === undefined ? '' : tag('min', min),
        max === undefined ? '' : tag('max', max),
        access.changeable.includes(name) ? '<changeable_in_readonly/>' : '',
      ].join('');
      if (rules) constraints.push(tag(name, rules));
    }
    return tag(access.role, `${values.join('')}${tag('constraints', constraints.join(''))}`);
  });
  const quotas = users.map(([, access]) => {
    const most = Object.entries(access.hourly).map(([name, value]) => tag(name, value));
    return tag(access.role, tag('interval', `${tag('duration', 3600)}${most.join('')}`));
  });
  const entries = users.map(([user, access]) => {
    const grants = access.grants(quoted(options)).map(grant => tag('query', escapeXml(`GRANT ${grant}`)));
    return tag(
      user,
      `${tag('password_sha256_hex', sha256(options.passwords[user]))}<networks><ip>::/0</ip></networks>` +
        `${tag('profile', access.role)}${tag('quota', access.role)}${tag('grants', grants.join(''))}`,
    );
  });
  return `<clickhouse>
<profiles><default><async_insert>0</async_insert></default>
${profiles.join('\n')}
</profiles>
<quotas><default/>
${quotas.join('\n')}
</quotas>
<users>
<default><password/><networks><ip>127.0.0.1</ip><ip>::1</ip></networks><profile>default</profile><quota>default</quota><access_management>1</access_management></default>
${entries.join('\n')}
</users>
</clickhouse>
`;
}

const tag = (name: string, content: string | number) => `<${name}>${content}</${name}>`;
const escapeXml = (text: string) => text.replace(/[&<>]/g, found => `&#${found.charCodeAt(0)};`);
