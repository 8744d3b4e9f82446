import type {Builder, Dataquery} from '@grafana/grafana-foundation-sdk/cog';

/** The plugin that the queries are written for. */
export const PLUGIN = {type: 'grafana-clickhouse-datasource', version: '4.20.0'} as const;

/** The reader chooses the datasource; its uid is never written into a dashboard. */
export const CHOSEN_DATASOURCE = {type: PLUGIN.type, uid: '${datasource}'};

/** Where the views are unless a dashboard is built for another name. */
export const ANALYTICS = 'ecommerce_analytics';

/** The time zone of the business, as it stands in queries, unless a dashboard is built for another one. */
export const ZONE = "'UTC'";
/** Days of the business that the chosen range touches. */
export const DAYS_IN_RANGE = `day BETWEEN toDate32($__fromTime, ${ZONE}) AND toDate32($__toTime, ${ZONE})`;

const FORMATS = {timeseries: 0, table: 1} as const;
export type Format = keyof typeof FORMATS;

export interface ClickHouseTarget extends Dataquery {
  refId: string;
  datasource: {type: string; uid: string};
  editorType: 'sql';
  rawSql: string;
  queryType: Format;
  format: 0 | 1;
  pluginVersion: string;
}

type Options = {format?: Format; refId?: string; datasource?: {type: string; uid: string}};

/**
 * A ClickHouse query, which the SDK has no builder for. `format` is always written, because the editor's unset value
 * is refused by newer plugins. Format 'timeseries' needs a time column first and ORDER BY it, ascending.
 */
export function sql(text: string, options: Options = {}): Builder<ClickHouseTarget> {
  const {format = 'table', refId = 'A', datasource = CHOSEN_DATASOURCE} = options;
  return {
    build: () => ({
      refId,
      datasource,
      editorType: 'sql',
      rawSql: text.trim(),
      queryType: format,
      format: FORMATS[format],
      pluginVersion: PLUGIN.version,
      _implementsDataqueryVariant() {},
    }),
  };
}

/** A query whose first column is the time; the others are lines, one for each value of a text column. */
export const series = (text: string): Builder<ClickHouseTarget> => sql(text, {format: 'timeseries'});
