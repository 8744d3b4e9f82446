import {
  QueryVariableBuilder,
  TextBoxVariableBuilder,
  VariableRefresh,
} from '@grafana/grafana-foundation-sdk/dashboard';
import {dashboard, line, row} from './layout.ts';
import * as customers from './panels/customers.ts';
import {completeUpTo} from './panels/freshness.ts';
import {CHOSEN_DATASOURCE} from './target.ts';

const country = () =>
  new QueryVariableBuilder('country')
    .label('Country')
    .description('Home country of the customer')
    .datasource(CHOSEN_DATASOURCE)
    .query({refId: 'country', editorType: 'sql', queryType: 'sql', rawSql: customers.COUNTRIES})
    .refresh(VariableRefresh.OnTimeRangeChanged)
    .multi(true)
    .includeAll(true)
    .current({text: ['All'], value: ['$__all']});

const search = () =>
  new TextBoxVariableBuilder('search')
    .label('Name')
    .description('Part of a name, for the customer list')
    .defaultValue('');

export const customerInsights = () =>
  dashboard({
    uid: 'customer-insights',
    title: 'Customer insights',
    why: 'Who buys, who comes back and who is being lost.',
    tags: ['customers'],
    from: 'now-90d',
    variables: [country(), search()],
    rows: [
      row(
        'At a glance',
        line(
          4,
          [6, completeUpTo()],
          [6, customers.customers()],
          [6, customers.returningShare()],
          [6, customers.customerValue()],
        ),
      ),
      row(
        'Do they come back?',
        line(8, [24, customers.newAndReturning()]),
        line(8, [8, customers.recency()], [8, customers.orderCounts()], [8, customers.customersByCountry()]),
      ),
      row(
        'Who are they?',
        line(10, [24, customers.topCustomers()]),
        line(14, [24, customers.customerTable()]),
      ),
    ],
  });
