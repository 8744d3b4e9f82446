// Makes the two databases and the users of clickhouse/access.ts on the ClickHouse of docker-compose.analytics.yml.
import {createClient} from '@clickhouse/client';
import {z} from 'zod';
import {accessSql} from '../clickhouse/access.ts';

const {url, admin, password, databases, passwords} = z
  .object({
    DEMO_CLICKHOUSE_URL: z.url(),
    DEMO_CLICKHOUSE_ADMIN: z.string().min(1),
    DEMO_CLICKHOUSE_ADMIN_PASSWORD: z.string().min(1),
    DEMO_FRESHET_PASSWORD: z.string().min(1),
    DEMO_GRAFANA_PASSWORD: z.string().min(1),
    DEMO_EXPLORER_PASSWORD: z.string().min(1),
  })
  .transform(env => ({
    url: env.DEMO_CLICKHOUSE_URL,
    admin: env.DEMO_CLICKHOUSE_ADMIN,
    password: env.DEMO_CLICKHOUSE_ADMIN_PASSWORD,
    databases: {cdc: 'cdc', analytics: 'ecommerce_analytics'},
    passwords: {
      freshet: env.DEMO_FRESHET_PASSWORD,
      grafana: env.DEMO_GRAFANA_PASSWORD,
      explorer: env.DEMO_EXPLORER_PASSWORD,
    },
  }))
  .parse(process.env);

const client = createClient({url, username: admin, password});
const statements = [
  ...Object.values(databases).map(name => `CREATE DATABASE IF NOT EXISTS ${name}`),
  // HTTP takes one statement a request.
  ...accessSql({databases, passwords}).split(/;\s*$/m),
];
for (const query of statements.filter(text => text.trim() !== '')) await client.command({query});
await client.close();
console.log(`made the databases ${Object.values(databases).join(', ')} and their users`);
