import {PROVISIONED_UID} from './alerts.ts';
import {ANALYTICS, PLUGIN} from './target.ts';

/** Where Grafana finds the generated dashboards; docker-compose.analytics.yml mounts them there. */
const DASHBOARDS_PATH = '/etc/grafana/freshet';

/** Address and password come from Grafana's environment, which it puts in for `$NAME` as it reads the file. */
export const datasourceFile = (): object => ({
  apiVersion: 1,
  datasources: [
    {
      name: 'Freshet ClickHouse',
      uid: PROVISIONED_UID,
      type: PLUGIN.type,
      access: 'proxy',
      isDefault: true,
      editable: false,
      jsonData: {
        host: '$GRAFANA_CLICKHOUSE_HOST',
        port: '$GRAFANA_CLICKHOUSE_PORT',
        protocol: 'native',
        secure: false,
        username: '$GRAFANA_CLICKHOUSE_USER',
        defaultDatabase: ANALYTICS,
        dialTimeout: '10',
        queryTimeout: '30',
      },
      secureJsonData: {password: '$GRAFANA_CLICKHOUSE_PASSWORD'},
    },
  ],
});

/** The files are the truth: Grafana takes them again every 30 s, and nobody edits them in the browser. */
export const providerFile = (): object => ({
  apiVersion: 1,
  providers: [
    {
      name: 'freshet',
      orgId: 1,
      type: 'file',
      folder: 'Freshet',
      disableDeletion: true,
      allowUiUpdates: false,
      updateIntervalSeconds: 30,
      options: {path: DASHBOARDS_PATH},
    },
  ],
});
