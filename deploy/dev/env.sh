#!/usr/bin/env bash
# Says where the developer servers live. The only place that decides it:
#   . deploy/dev/env.sh       exports the variables below
#   bash deploy/dev/env.sh    prints them as KEY=VALUE lines
# Override any of them in the environment, e.g. REPLICATOR_DEV_DIR or PG15_BIN.

if [ -n "${REPLICATOR_DEV_DIR:-}" ]; then
  DEV_DIR="$REPLICATOR_DEV_DIR"
elif [ "$(id -u)" -eq 0 ]; then
  # Postgres refuses to run as root, so root starts it as another user, and
  # that user cannot look into a home directory of mode 0700.
  DEV_DIR=/var/cache/replicator
else
  DEV_DIR="${XDG_CACHE_HOME:-$HOME/.cache}/replicator"
fi

# The account that Postgres is started as: empty means "as whoever you are".
if [ "$(id -u)" -eq 0 ]; then
  DEV_RUN_AS="${DEV_RUN_AS-postgres}"
else
  DEV_RUN_AS=""
fi

PG15_BIN="${PG15_BIN:-/usr/lib/postgresql/15/bin}" # also psql, pgbench, pg_recvlogical
PG17_BIN="${PG17_BIN:-$DEV_DIR/pg17/bin}"          # initdb, pg_ctl and postgres only
PG18_BIN="${PG18_BIN:-$DEV_DIR/pg18/bin}"          # the same
DEV_PYTHON="${DEV_PYTHON:-$DEV_DIR/venv/bin/python}"

export DEV_DIR DEV_RUN_AS PG15_BIN PG17_BIN PG18_BIN DEV_PYTHON

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  for name in DEV_DIR DEV_RUN_AS PG15_BIN PG17_BIN PG18_BIN DEV_PYTHON; do
    printf '%s=%s\n' "$name" "${!name}"
  done
fi
