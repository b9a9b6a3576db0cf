#!/usr/bin/env bash
# Buys in the shop, LOAD_RATE times a second, until it is stopped.
set -euo pipefail

PGPASSWORD="$(cat /run/secrets/source-postgres)"
export PGPASSWORD

# So that the load is seen arriving.
until [ "$(psql -XAtqc "SELECT count(*) FROM pg_replication_slots WHERE active")" != 0 ]; do
  echo "waiting for the replicator to read from its slot"
  sleep 2
done

psql -Xq -v ON_ERROR_STOP=1 -f /load/catalog.sql
exec pgbench --no-vacuum --file=/load/purchase.sql --client=2 --rate="${LOAD_RATE:-300}" --time=100000000 --progress=10
