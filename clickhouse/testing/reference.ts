/**
 * What each view has to show, in PostgreSQL's own words: written from the description of the measures and not from
 * the views. `$1` is now. Whole numbers and money come as text from the driver, times are text.
 */
const time = (expression: string) =>
  `to_char((${expression}) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')`;

/** Sales by calendar unit: everything of one unit by subqueries, unit by unit. */
const salesBy = (unit: 'day' | 'month', zone: string) => `
  WITH bucket AS (
    SELECT starts, ((starts AT TIME ZONE '${zone}')::date + interval '1 ${unit}') AT TIME ZONE '${zone}' AS ends
    FROM (
      SELECT DISTINCT date_trunc('${unit}', at, '${zone}') AS starts
      FROM (SELECT created_at AS at FROM orders UNION ALL SELECT ordered_at FROM order_items) AS moments
    ) AS started
  )
  SELECT (starts AT TIME ZONE '${zone}')::date::text AS ${unit}, o.*, l.*,
    l.line_total - l.cancelled_total AS revenue,
    round((l.line_total - l.cancelled_total) / nullif(o.sales_orders, 0), 3) AS average_order_value,
    c.customers, c.first_time_customers, c.customers - c.first_time_customers AS returning_customers
  FROM bucket
  CROSS JOIN LATERAL (
    SELECT count(*) AS orders,
      count(*) FILTER (WHERE status <> 'cancelled' AND status <> 'return') AS sales_orders,
      count(*) FILTER (WHERE status = 'cancelled') AS cancelled_orders,
      count(*) FILTER (WHERE status = 'return') AS return_orders
    FROM orders WHERE created_at >= starts AND created_at < ends
  ) AS o
  CROSS JOIN LATERAL (
    SELECT count(*) AS lines,
      coalesce(sum(quantity) FILTER (WHERE status <> 'cancelled'), 0) AS units,
      coalesce(sum(quantity * unit_price), 0.000) AS line_total,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status <> 'cancelled' AND status <> 'return'), 0.000) AS gross_sales,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status = 'return'), 0.000) AS returns_total,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status = 'cancelled'), 0.000) AS cancelled_total
    FROM order_items JOIN orders ON orders.id = order_id WHERE ordered_at >= starts AND ordered_at < ends
  ) AS l
  CROSS JOIN LATERAL (
    SELECT count(DISTINCT customer_id) AS customers,
      count(DISTINCT customer_id) FILTER (WHERE NOT EXISTS (
        SELECT FROM orders AS earlier WHERE earlier.customer_id = orders.customer_id
          AND earlier.status NOT IN ('cancelled', 'return') AND earlier.created_at < starts
      )) AS first_time_customers
    FROM orders WHERE status NOT IN ('cancelled', 'return') AND created_at >= starts AND created_at < ends
  ) AS c
  ORDER BY starts`;

const hourly = (zone: string) => `
  SELECT to_char(starts AT TIME ZONE '${zone}', 'YYYY-MM-DD HH24:MI:SS') AS hour, o.*, l.*,
    round(l.revenue / nullif(o.sales_orders, 0), 3) AS average_order_value
  FROM generate_series(date_trunc('hour', $1::timestamptz, '${zone}') - interval '23 hours', $1::timestamptz, interval '1 hour') AS starts
  CROSS JOIN LATERAL (
    SELECT count(*) AS orders,
      count(*) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS sales_orders,
      count(*) FILTER (WHERE status = 'cancelled') AS cancelled_orders,
      count(*) FILTER (WHERE status = 'return') AS return_orders,
      count(DISTINCT customer_id) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS customers
    FROM orders WHERE created_at >= starts AND created_at < starts + interval '1 hour'
  ) AS o
  CROSS JOIN LATERAL (
    SELECT count(*) AS lines,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status <> 'cancelled'), 0.000) AS revenue
    FROM order_items JOIN orders ON orders.id = order_id
    WHERE ordered_at >= starts AND ordered_at < starts + interval '1 hour'
  ) AS l
  ORDER BY starts`;

const customers = (zone: string) => `
  SELECT c.id AS customer_id, c.name, c.country, o.orders, o.sales_orders, o.cancelled_orders, o.return_orders,
    l.lines, l.units, l.line_total, l.revenue,
    round(l.revenue / nullif(o.sales_orders, 0), 3) AS average_order_value,
    ${time('o.first')} AS first_order_at, ${time('o.last')} AS last_order_at,
    (($1::timestamptz AT TIME ZONE '${zone}')::date - (o.last AT TIME ZONE '${zone}')::date)::bigint AS days_since_last_order,
    o.sales_orders > 1 AS is_returning
  FROM customers AS c
  CROSS JOIN LATERAL (
    SELECT count(*) AS orders,
      count(*) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS sales_orders,
      count(*) FILTER (WHERE status = 'cancelled') AS cancelled_orders,
      count(*) FILTER (WHERE status = 'return') AS return_orders,
      min(created_at) AS first, max(created_at) AS last
    FROM orders WHERE customer_id = c.id
  ) AS o
  CROSS JOIN LATERAL (
    SELECT count(*) AS lines,
      coalesce(sum(quantity) FILTER (WHERE status <> 'cancelled'), 0) AS units,
      coalesce(sum(quantity * unit_price), 0.000) AS line_total,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status <> 'cancelled'), 0.000) AS revenue
    FROM order_items JOIN orders ON orders.id = order_id WHERE customer_id = c.id
  ) AS l
  WHERE o.orders > 0`;

const products = `
  SELECT p.id AS product_id, p.sku, p.name, p.category, p.price, l.orders, l.lines, l.units, l.line_total, l.revenue,
    l.returned AS returned_units, CASE WHEN l.sold > 0 THEN l.returned::float8 / l.sold::float8 END AS return_rate,
    ${time('l.first')} AS first_sold_at, ${time('l.last')} AS last_sold_at
  FROM products AS p
  CROSS JOIN LATERAL (
    SELECT count(DISTINCT order_id) FILTER (WHERE status <> 'cancelled') AS orders,
      count(order_id) AS lines,
      coalesce(sum(quantity) FILTER (WHERE status <> 'cancelled'), 0) AS units,
      coalesce(sum(quantity * unit_price), 0.000) AS line_total,
      coalesce(sum(quantity * unit_price) FILTER (WHERE status <> 'cancelled'), 0.000) AS revenue,
      coalesce(-sum(quantity) FILTER (WHERE status = 'return'), 0) AS returned,
      sum(quantity) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS sold,
      min(ordered_at) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS first,
      max(ordered_at) FILTER (WHERE status NOT IN ('cancelled', 'return')) AS last
    FROM order_items JOIN orders ON orders.id = order_id WHERE product_id = p.id
  ) AS l`;

const recent = `
  SELECT ${time('o.created_at')} AS at, o.id AS order_id, o.order_no, o.customer_id,
    (SELECT name FROM customers WHERE customers.id = o.customer_id) AS customer_name, o.country, o.status::text,
    (SELECT count(*) FROM order_items WHERE order_id = o.id) AS lines,
    (SELECT coalesce(sum(quantity * unit_price), 0.000) FROM order_items WHERE order_id = o.id) AS total
  FROM orders AS o WHERE o.created_at >= $1::timestamptz - interval '24 hours'
  ORDER BY o.created_at DESC, o.id DESC`;

const top = (rows: string, order: string, most: number) =>
  `SELECT row_number() OVER (ORDER BY ${order}) AS rank, ranked.* FROM (${rows}) AS ranked ORDER BY rank LIMIT ${most}`;

/** View → query, with days and hours of a time zone. */
export const reference = (zone: string): Readonly<Record<string, string>> => ({
  daily_sales_summary: salesBy('day', zone),
  monthly_sales_summary: salesBy('month', zone),
  hourly_orders_trend: hourly(zone),
  customer_metrics: `${customers(zone)} ORDER BY customer_id`,
  top_customers_by_orders: top(customers(zone), 'sales_orders DESC, revenue DESC, customer_id', 50),
  product_performance: `${products} ORDER BY product_id`,
  top_selling_products: top(products, 'units DESC, revenue DESC, product_id', 20),
  recent_activity: recent,
});
