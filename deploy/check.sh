#!/usr/bin/env bash
# Checks what is in deploy/ as far as it goes without a container engine: bash deploy/check.sh
#
# Always: metric names of alerts and dashboards against the code, alerts against their tests and the runbook, the
# dashboards' JSON, the image's toolchain, the compose file's mounts, images and ports. Where they are installed:
# promtool (rules and their tests, the dashboards' queries), PyYAML, docker compose. With a built replicator (in
# target/, or named by REPLICATOR): whether it takes the compose file's configuration and the examples.
# It needs bash, grep, awk and python3, and no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=0
ok() { printf 'ok    %s\n' "$*"; }
note() { printf 'note  %s\n' "$*"; }
fail() {
  printf 'FAIL  %s\n' "$*"
  failed=1
}
has() { command -v "$1" >/dev/null 2>&1; }

# passes NAME COMMAND…: ok, or FAIL with what the command said.
passes() {
  local name=$1
  shift
  if "$@" >"$scratch/out" 2>&1; then ok "$name"; else fail "$name: $(<"$scratch/out")"; fi
}

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

rules=deploy/prometheus/alerts.yml
dashboards=(deploy/grafana/dashboards/*.json)

# ------------------------------------------------------------------ metric names

# Every name is a constant: most in names.rs, a sink's own ones in its folder. Histograms have three series each.
names_rs=internal/telemetry/src/metrics/names.rs
defined_names() {
  grep -ohE '"(replicator|process)_[a-z0-9_]+"' "$names_rs" | tr -d '"'
  grep -rohE --include='*.rs' 'const [A-Z_]+: &str = "replicator_[a-z0-9_]+"' internal cmd | grep -oE 'replicator_[a-z0-9_]+'
}
histograms() { grep -E '^ *Histogram ' "$names_rs" | grep -oE '"[a-z0-9_]+"' | tr -d '"'; }

# In rules the name of anything else that begins so (a job, a label) stands in quotes; in JSON all is in quotes,
# so only the queries are looked at.
queries() {
  python3 - "$@" <<'PYTHON'
import json, sys

def walk(node):
    if isinstance(node, dict):
        for key in ("expr", "definition"):
            if isinstance(node.get(key), str):
                print(node[key].replace("\n", " "))
        for value in node.values():
            walk(value)
    elif isinstance(node, list):
        for value in node:
            walk(value)

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        walk(json.load(file))
PYTHON
}

check_names() {
  local name unknown=0
  defined_names | sort -u >"$scratch/defined"
  {
    cat "$scratch/defined"
    histograms | awk '{ print $0 "_bucket"; print $0 "_sum"; print $0 "_count" }'
  } | sort -u >"$scratch/series"
  [ "$(wc -l <"$scratch/defined")" -ge 20 ] || fail "metric names: fewer than 20 found in the code; did $names_rs move?"
  {
    sed -E "s/#.*//; s/\"[^\"]*\"//g; s/'[^']*'//g" "$rules"
    queries "${dashboards[@]}" | sed -E 's/"[^"]*"//g'
  } | grep -oE '\b(replicator|process)_[a-z0-9_]+' | sort -u >"$scratch/used"
  while read -r name; do
    fail "metric names: $name is used in deploy/ and defined nowhere"
    unknown=1
  done < <(comm -13 "$scratch/series" "$scratch/used")
  # A histogram's own name has no series: it needs one of its suffixes.
  while read -r name; do
    fail "metric names: $name is a histogram; use ${name}_bucket, _sum or _count"
    unknown=1
  done < <(comm -12 <(histograms | sort) "$scratch/used")
  [ "$unknown" = 1 ] || ok "metric names: all $(wc -l <"$scratch/used") that are used are defined"
  sed -E 's/_(bucket|sum|count)$//' "$scratch/used" | sort -u | comm -23 "$scratch/defined" - |
    while read -r name; do note "metric names: $name is on no dashboard and in no alert"; done
}

# ------------------------------------------------------------------ alerts

check_alerts() {
  local alert
  while read -r alert; do
    grep -q "runbook: docs/operations.md#${alert,,}\$" "$rules" || fail "alert $alert: no runbook annotation of its name"
    grep -qE "^#+ $alert\$" docs/operations.md || fail "alert $alert: docs/operations.md has no heading of that name"
    grep -q "$alert" deploy/prometheus/alerts_test.yml || fail "alert $alert: has no test in alerts_test.yml"
  done < <(grep -oP '^ *- alert: \K.*' "$rules")
  while read -r alert; do
    grep -q "alert: $alert\$" "$rules" || fail "docs/operations.md describes $alert, which is no alert"
  done < <(grep -oP '^#+ \KReplicator[A-Z]\w*$' docs/operations.md)
  ok "alerts: $(grep -c '^ *- alert:' "$rules"), compared with their runbook and tests"
  if ! has promtool; then
    note "alerts: promtool is not installed (Debian: prometheus), so rules were not parsed nor their tests run"
    return
  fi
  passes "promtool check config" promtool check config deploy/prometheus/prometheus.yml
  passes "promtool check rules" promtool check rules "$rules"
  passes "promtool test rules" promtool test rules deploy/prometheus/alerts_test.yml
}

# ------------------------------------------------------------------ dashboards

check_dashboards() {
  python3 - "${dashboards[@]}" <<'PYTHON' || failed=1
import json, sys

bad = False
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        panels = json.load(file)["panels"]
    ids = [panel["id"] for panel in panels]
    places = {}
    for panel in panels:
        grid = panel["gridPos"]
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                other = places.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    bad = True
                    print(f"FAIL  {path}: {panel['title']} lies on {other}")
                    break
        if panel["type"] != "row" and not panel.get("targets"):
            bad = True
            print(f"FAIL  {path}: {panel['title']} has no query")
    if len(set(ids)) != len(ids):
        bad = True
        print(f"FAIL  {path}: panel ids are not unique")
    print(f"ok    {path}: {sum(panel['type'] != 'row' for panel in panels)} panels")
sys.exit(bad)
PYTHON
  has promtool || return 0
  # As rules, with Grafana's variables filled in, promtool parses the queries too.
  {
    printf 'groups:\n  - name: dashboard\n    rules:\n'
    queries "${dashboards[@]}" | grep -v '^label_values' | awk '
      { gsub(/\$__rate_interval/, "5m"); gsub(/\$[a-z]+/, ".*"); gsub(/\047/, "\047\047")
        printf "      - record: q:%d\n        expr: \047%s\047\n", NR, $0 }'
  } >"$scratch/queries.yml"
  passes "promtool reads the dashboards' queries" promtool check rules --lint=none "$scratch/queries.yml"
}

# ------------------------------------------------------------------ image and compose

check_image() {
  local file=deploy/Dockerfile toolchain
  toolchain="$(grep -oP '^channel = "\K[^"]+' rust-toolchain.toml)"
  grep -q "^FROM rust:$toolchain-" $file || fail "$file: its base is not rust:$toolchain, the toolchain of rust-toolchain.toml"
  grep -q "RUSTUP_TOOLCHAIN=$toolchain\b" $file || fail "$file: RUSTUP_TOOLCHAIN is not $toolchain"
  [ "$(grep '^FROM ' $file | tail -1)" = "FROM scratch" ] || fail "$file: its last stage is not FROM scratch"
  sed -n '/^FROM scratch/,$p' $file >"$scratch/final"
  grep -qE '^USER [1-9][0-9]*:[1-9][0-9]*$' "$scratch/final" || fail "$file: no numeric, non-root USER"
  grep -q '^RUN' "$scratch/final" && fail "$file: RUN in the last stage, which has no shell"
  local path
  for path in Cargo.toml Cargo.lock cmd internal pkg tests; do
    grep -qxE "/?$path/?" .dockerignore && fail ".dockerignore leaves out $path, which the build needs"
  done
  ok "$file and .dockerignore"
}

compose_file=deploy/compose/compose.yaml

check_compose() {
  local path image
  # Its own mounts are those that begin with a dot.
  while read -r path; do
    [ -e "deploy/compose/$path" ] || fail "$compose_file: $path is not there"
  done < <(sed 's/#.*//' $compose_file | grep -oE '(\s|- )\.\.?/[A-Za-z0-9_./-]*' | sed -E 's/^[ -]*//')
  while read -r image; do
    case "$image" in
      *.*/* | *:*/* | localhost/*) fail "$compose_file: image $image names a registry" ;;
    esac
  done < <(grep -oP '^\s+image: \K.*' $compose_file | sed -E 's/\$\{[A-Z_]+:-(.*)\}/\1/')
  if grep -oP '"\K[^"]*:\d+(?=")' $compose_file | grep -vE '^(127\.0\.0\.1:|https?://)' | grep -qE '^[0-9$]'; then
    fail "$compose_file: a port is published beyond 127.0.0.1"
  fi
  if python3 -c 'import yaml' 2>/dev/null; then
    python3 - deploy/compose/compose.yaml deploy/prometheus/*.yml deploy/grafana/provisioning/*/*.yml <<'PYTHON' || failed=1
import sys, yaml

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        document = yaml.safe_load(file)
    if not path.endswith("compose.yaml"):
        continue
    services, bad = document["services"], False
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            if other not in services:
                bad = True
                print(f"FAIL  {path}: {name} depends on {other}, which is no service")
        for secret in service.get("secrets", []):
            if secret not in document["secrets"]:
                bad = True
                print(f"FAIL  {path}: {name} wants the secret {secret}, which is not defined")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith(".") and source not in document["volumes"]:
                bad = True
                print(f"FAIL  {path}: {name} mounts {source}, which is no volume")
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                bad = True
                print(f"FAIL  {path}: {name} publishes {port} beyond 127.0.0.1")
    if bad:
        sys.exit(1)
print("ok    all YAML files are read by PyYAML")
PYTHON
  else
    note "PyYAML is not installed (Debian: python3-yaml), so YAML was not parsed"
  fi
  if has docker && docker compose version >/dev/null 2>&1; then
    passes "docker compose config" docker compose -f $compose_file --profile load config --quiet
  else
    note "docker compose is not installed, so it has not read $compose_file"
  fi
  ok "$compose_file: mounts, images, ports"
}

# ------------------------------------------------------------------ configurations

# `check` of a configuration that is taken says how its servers are; of one that is not, a line and nothing else.
takes() {
  local file=$1
  shift
  env "$@" timeout 60 "$replicator" check --config "$file" >"$scratch/out" 2>"$scratch/err" || true
  if grep -qE '^(ok|FAIL) ' "$scratch/out"; then
    ok "$replicator takes $file"
  else
    fail "$file: $(<"$scratch/err")"
  fi
}

check_configurations() {
  local candidate replicator="${REPLICATOR:-}"
  for candidate in target/release/replicator target/debug/replicator; do
    [ -n "$replicator" ] || ! [ -x "$candidate" ] || replicator="$candidate"
  done
  if [ -z "$replicator" ]; then
    note "no replicator is built, so the configurations were not read"
    return
  fi
  # Nobody answers there: what counts is that it gets as far as asking. The secrets are where the container has
  # them mounted from.
  local secrets="$PWD/deploy/compose/secrets"
  takes deploy/compose/replicator.toml ARCHIVE_BUCKET=archive ACCESS_KEY_ID=shop-archive \
    REPLICATOR__SOURCE__URL=postgres://replicator@127.0.0.1:1/shop \
    REPLICATOR__SOURCE__PASSWORD_FILE="$secrets/source-replicator" \
    REPLICATOR__SINK__ANALYTICS__URL=http://127.0.0.1:1 \
    REPLICATOR__SINK__ANALYTICS__PASSWORD_FILE="$secrets/clickhouse" \
    REPLICATOR__SINK__COPY__URL=postgres://replicator@127.0.0.1:1/copy \
    REPLICATOR__SINK__COPY__PASSWORD_FILE="$secrets/copy-replicator" \
    REPLICATOR__SINK__ARCHIVE__ENDPOINT=http://127.0.0.1:1 \
    REPLICATOR__SINK__ARCHIVE__SECRET_ACCESS_KEY_FILE="$secrets/minio-password"
}

check_names
check_alerts
check_dashboards
check_image
check_compose
check_configurations
exit "$failed"
