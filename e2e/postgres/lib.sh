# shellcheck shell=bash
# What start and stop share: whose PostgreSQL it is and where its programs are.

say() { printf 'postgres: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# PostgreSQL refuses to run as root: root becomes the user `postgres`, anyone else stays who they are.
as_server=()
[ "$(id -u)" != 0 ] || as_server=(setpriv --reuid postgres --regid postgres --init-groups)

# programs: the folder of the newest server on the machine. Debian keeps each version in a folder of its own.
programs() {
  local found
  found=$({
    compgen -G '/usr/lib/postgresql/*/bin/postgres' || true
    printf '%s/postgres\n' "$(pg_config --bindir 2>/dev/null || true)"
  } | sort -Vr | while read -r program; do
    [ ! -x "$program" ] || { dirname "$program" && break; }
  done)
  [ -n "$found" ] || fail "no PostgreSQL server on this machine: scripts/prerequisites postgres installs one"
  printf '%s\n' "$found"
}
