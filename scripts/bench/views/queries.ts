/** A question that a dashboard asks of a view. `{}` stands for the view, `{customer}` for one of the customers. */
export interface Question {
  readonly view: string;
  readonly range: string;
  readonly sql: string;
}

const question = (view: string, range: string, rest: string): Question => ({
  view,
  range,
  sql: `SELECT * FROM {} ${rest}`,
});

/** What is usually asked of each of the nine views. */
export const QUESTIONS: readonly Question[] = [
  question('daily_sales_summary', '30 days', 'WHERE day > today() - 30'),
  question('daily_sales_summary', 'all time', ''),
  question('monthly_sales_summary', 'all time', ''),
  question('hourly_orders_trend', '24 hours', ''),
  question('customer_metrics', 'one customer', 'WHERE customer_id = {customer}'),
  question('customer_metrics', 'top 10', 'ORDER BY revenue DESC LIMIT 10'),
  question('top_customers_by_orders', 'top 50', ''),
  question('product_performance', 'one product', 'WHERE product_id = 77'),
  question('product_performance', 'top 20', 'ORDER BY revenue DESC LIMIT 20'),
  question('top_selling_products', 'top 20', ''),
  question('recent_activity', 'newest 50', 'LIMIT 50'),
  question('data_freshness', 'now', ''),
];
