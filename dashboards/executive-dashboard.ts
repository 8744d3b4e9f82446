import {dashboard, line, row} from './layout.ts';
import {completeUpTo} from './panels/freshness.ts';
import {mostReturned, revenueByCategory, topProducts} from './panels/products.ts';
import * as sales from './panels/sales.ts';

export const executiveDashboard = () =>
  dashboard({
    uid: 'executive-dashboard',
    title: 'Executive dashboard',
    why: 'How the shop does: revenue, orders and products, complete up to the time that is shown.',
    tags: ['sales'],
    from: 'now-30d',
    rows: [
      row(
        'At a glance',
        line(4, [6, completeUpTo()], [6, sales.revenue()], [6, sales.orders()], [6, sales.orderValue()]),
        line(4, [8, sales.newCustomers()], [8, sales.returns()], [8, sales.cancellations()]),
      ),
      row(
        'Sales',
        line(8, [12, sales.dailyRevenue()], [12, sales.dailyOrders()]),
        line(8, [12, sales.hourlyRevenue()], [12, sales.hourlyOrders()]),
        line(9, [16, sales.monthlySales()], [8, sales.revenueByCountry()]),
      ),
      row('Products', line(9, [16, topProducts()], [8, revenueByCategory()]), line(9, [24, mostReturned()])),
      row('Now', line(10, [24, sales.recentOrders()])),
    ],
  });
