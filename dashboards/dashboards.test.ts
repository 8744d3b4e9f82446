import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import * as units from '@grafana/grafana-foundation-sdk/units';
import test from 'ava';
import {parse} from 'yaml';
import {z} from 'zod';
import {readMigrationFiles} from '../clickhouse/migration-files.ts';
import {ALERTS, PROVISIONED_UID} from './alerts.ts';
import {buildDashboards, buildProvisioning, DASHBOARDS_FOLDER} from './build.ts';
import {everyQuery, type Panel, readDashboards} from './testing/queries.ts';

const dashboards = readDashboards();
const panels = dashboards.flatMap(({uid, panels}) => panels.map(panel => ({uid, ...panel})));
const isRow = ({type}: Panel) => type === 'row';
const repeated = (values: readonly unknown[]) => values.filter((value, i) => values.indexOf(value) !== i);

test('committed files are what the code makes', async t => {
  const built = [
    ...buildDashboards().map(({file, json}) => [file, json] as const),
    ...(await buildProvisioning()).map(({file, yaml}) => [file, yaml] as const),
  ];
  for (const [file, text] of built) {
    t.is(readFileSync(join(DASHBOARDS_FOLDER, file), 'utf8'), text, `${file}: run freshet dashboards build`);
  }
  const committed = ['generated', 'provisioning'].flatMap(folder =>
    readdirSync(join(DASHBOARDS_FOLDER, folder), {recursive: true, withFileTypes: true})
      .filter(entry => entry.isFile())
      .map(entry => join(entry.parentPath, entry.name).slice(DASHBOARDS_FOLDER.length + 1)),
  );
  t.deepEqual(committed.sort(), built.map(([file]) => file).sort());
});

test('uids are the three names, and what all dashboards share is there', t => {
  t.deepEqual(dashboards.map(({uid}) => uid).sort(), [
    'customer-insights',
    'data-freshness',
    'executive-dashboard',
  ]);
  for (const {uid, ...dashboard} of dashboards) {
    t.like(
      dashboard,
      {editable: false, refresh: '30s', graphTooltip: 1, timezone: 'utc', schemaVersion: 42},
      uid,
    );
    t.true(dashboard.tags.includes('freshet'), uid);
    t.deepEqual(
      dashboard.links.map(({type, tags, keepTime}) => ({type, tags, keepTime})),
      [{type: 'dashboards', tags: ['freshet'], keepTime: true}],
      uid,
    );
    t.true(
      dashboard.panels.some(({title}) => title === 'Complete up to'),
      uid,
    );
  }
});

test('ids, titles and refIds are unique', t => {
  for (const {uid, panels} of dashboards) {
    t.deepEqual(repeated(panels.map(({id}) => id)), [], uid);
    t.deepEqual(repeated(panels.map(({title}) => title)), [], uid);
    for (const {title, targets} of panels) t.deepEqual(repeated(targets.map(({refId}) => refId)), [], title);
  }
});

test('panels are inside the grid and not on one another', t => {
  for (const {uid, panels} of dashboards) {
    const taken = new Map<string, string>();
    for (const {title, gridPos} of panels) {
      t.true(gridPos.x >= 0 && gridPos.x + gridPos.w <= 24, `${uid}, ${title}`);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          t.is(taken.get(`${x},${y}`), undefined, `${uid}: ${title}`);
          taken.set(`${x},${y}`, title);
        }
      }
    }
  }
});

test('every panel says what it means, and in which unit', t => {
  const known = new Set<unknown>(Object.values(units));
  for (const panel of panels.filter(panel => !isRow(panel))) {
    const name = `${panel.uid}: ${panel.title}`;
    t.true((panel.description ?? '').length > 40, name);
    if (panel.type === 'text') continue;
    t.true(known.has(panel.fieldConfig?.defaults.unit), name);
    for (const {properties} of panel.fieldConfig?.overrides ?? []) {
      for (const {id, value} of properties) if (id === 'unit') t.true(known.has(value), `${name}: ${value}`);
    }
  }
});

test('every query goes to the chosen datasource, in a format of the plugin', t => {
  for (const panel of panels.filter(({type}) => type !== 'row' && type !== 'text')) {
    const name = `${panel.uid}: ${panel.title}`;
    t.is(panel.datasource?.uid, '${datasource}', name);
    t.is(panel.targets.length, 1, name);
    for (const target of panel.targets) {
      t.deepEqual(target.datasource, {type: 'grafana-clickhouse-datasource', uid: '${datasource}'}, name);
      t.is(target.pluginVersion, '4.20.0', name);
      t.is(target.queryType, target.format === 0 ? 'timeseries' : 'table', name);
      t.is(target.format === 0, panel.type === 'timeseries', name);
      if (target.format === 0) t.regex(target.rawSql, /ORDER BY time(,|$)/, name);
    }
  }
  for (const {json} of buildDashboards()) t.notRegex(json, new RegExp(PROVISIONED_UID));
});

test('variables: the datasource comes first, and queries follow the time range', t => {
  for (const {uid, templating, panels} of dashboards) {
    const queries = JSON.stringify(panels.map(({targets}) => targets));
    for (const {name} of templating.list) t.regex(queries, new RegExp(`\\$\\{?${name}\\b`), `${uid}: unused`);
    t.like(templating.list[0], {name: 'datasource', label: 'Data source', type: 'datasource'}, uid);
    for (const {name, type, refresh} of templating.list) {
      if (type === 'query') t.is(refresh, 2, `${uid}: $${name}`);
    }
    t.deepEqual(repeated(templating.list.map(({name}) => name)), [], uid);
  }
});

test('links lead to dashboards that exist', t => {
  const linked = panels.flatMap(({links}) => links.map(({url}) => /^\/d\/([\w-]+)/.exec(url)?.[1]));
  t.true(linked.length > 0);
  for (const uid of linked)
    t.true(
      dashboards.some(dashboard => dashboard.uid === uid),
      uid,
    );
});

test('queries read views by version and nothing else', t => {
  const released = new Set(readMigrationFiles().map(({object}) => `ecommerce_analytics.${object}`));
  for (const {name, rawSql} of everyQuery('ecommerce_analytics')) {
    const sources = [...rawSql.matchAll(/(?<!\bFILL )\b(?:FROM|JOIN)\s+([^\s(]+)/g)].map(
      ([, source]) => source!,
    );
    t.true(sources.length > 0, name);
    for (const source of sources) {
      t.regex(source, /^ecommerce_analytics\.\w+_v\d+$/, name);
      t.true(released.has(source), `${name}: no file makes ${source}`);
    }
    // A whole day is lost at the left edge when a Date column meets a time of day.
    t.notRegex(rawSql, /\$__timeFilter\((day|month)\)/, name);
    t.notRegex(
      rawSql,
      /\bSETTINGS\b/,
      `${name}: settings belong in the view, a readonly user may not set any`,
    );
  }
});

const Rules = z.object({
  apiVersion: z.literal(1),
  groups: z.array(
    z.object({
      orgId: z.literal(1),
      name: z.string().min(1),
      folder: z.string().min(1),
      interval: z.string().regex(/^\d+0s$/),
      rules: z.array(
        z.strictObject({
          uid: z.string().regex(/^[\w-]{1,40}$/),
          title: z.string().min(1),
          condition: z.literal('C'),
          data: z.array(
            z.strictObject({
              refId: z.string(),
              datasourceUid: z.string(),
              relativeTimeRange: z.strictObject({from: z.number().positive(), to: z.number()}),
              model: z.looseObject({refId: z.string(), datasource: z.object({uid: z.string()})}),
            }),
          ),
          for: z.string().regex(/^\d+[smh]$/),
          noDataState: z.literal('Alerting'),
          execErrState: z.enum(['Alerting', 'OK']),
          // Values of labels are put through $ interpolation, so none may be in them.
          labels: z.record(z.string(), z.string().regex(/^[^$]+$/)),
          annotations: z.strictObject({
            summary: z.string().min(1),
            description: z.string().min(1),
            what_to_do: z.string().min(1),
          }),
          dashboardUid: z.string(),
          panelId: z.number(),
        }),
      ),
    }),
  ),
});

test('alert rules have the shape of the file, and lead to their panel', async t => {
  const files = await buildProvisioning();
  const {groups} = Rules.parse(parse(files.find(({file}) => file.includes('alerting/'))!.yaml));
  const rules = groups.flatMap(({rules}) => rules);
  t.is(rules.length, ALERTS.length);
  t.deepEqual(repeated(rules.map(({uid}) => uid)), []);
  for (const [i, {title, data, dashboardUid, panelId, annotations}] of rules.entries()) {
    t.deepEqual(
      data.map(({refId, datasourceUid, model}) => [refId, model.refId, datasourceUid, model.datasource.uid]),
      [
        ['A', 'A', PROVISIONED_UID, PROVISIONED_UID],
        ['B', 'B', '__expr__', '__expr__'],
        ['C', 'C', '__expr__', '__expr__'],
      ],
      title,
    );
    t.like(data[0]!.model, {format: 1, queryType: 'table', rawSql: ALERTS[i]!.query}, title);
    t.notRegex(ALERTS[i]!.query, /\$\{|\$__(conditionalAll|adHocFilters)/, title);
    t.notRegex(JSON.stringify(annotations), /\$\{/, title);
    const panel = panels.find(({uid, id}) => uid === dashboardUid && id === panelId);
    t.is(panel?.title, ALERTS[i]!.panel, title);
  }
});

test('the datasource file holds no secret, and the provider shows what was generated', async t => {
  const files = await buildProvisioning();
  const read = (part: string): unknown => parse(files.find(({file}) => file.includes(part))!.yaml);
  t.like(read('datasources/'), {
    datasources: [
      {
        uid: PROVISIONED_UID,
        jsonData: {host: '$GRAFANA_CLICKHOUSE_HOST', username: '$GRAFANA_CLICKHOUSE_USER'},
        secureJsonData: {password: '$GRAFANA_CLICKHOUSE_PASSWORD'},
      },
    ],
  });
  t.like(read('provisioning/dashboards/'), {providers: [{type: 'file', allowUiUpdates: false}]});
});

test('another name for the views and another time zone go into every query, and another currency to every amount', async t => {
  const of = {database: 'shop_views', currency: 'CHF', timeZone: 'Europe/Zurich'};
  const texts = [
    ...buildDashboards(of).map(({json}) => json),
    ...(await buildProvisioning(of)).map(({yaml}) => yaml),
  ];
  for (const text of texts) t.notRegex(text, /ecommerce_analytics/);
  t.regex(texts.join(''), /FROM shop_views\.daily_sales_summary_v2/);
  t.regex(texts.join(''), /"currencyCHF"/);
  t.notRegex(texts.join(''), /currencyGBP/);
  t.regex(texts.join(''), /toDate32\(\$__fromTime, 'Europe\/Zurich'\)/);
  for (const {json} of buildDashboards(of)) t.is(JSON.parse(json).timezone, 'Europe/Zurich');
  t.notRegex(texts.join(''), /'UTC'|dateFilter/);
  // Grafana has no unit for it.
  t.regex(
    buildDashboards({...of, currency: 'SGD'})
      .map(({json}) => json)
      .join(''),
    /"currency:SGD "/,
  );
});
