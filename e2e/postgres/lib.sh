# shellcheck shell=bash
# What start and stop share: whose PostgreSQL it is and where its programs are.

say() { printf 'postgres: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

# PostgreSQL refuses to run as root: root becomes the user `postgres`, anyone else stays who they are. Root also gives the
# server an IPC namespace of its own, so that its shared memory cannot outlive it, and initdb a /dev/shm for the same
# reason.
as_server=() confined=()
# shellcheck disable=SC2034 # used by start and stop
if [ "$(id -u)" = 0 ]; then
  as_server=(unshare --ipc -- setpriv --reuid postgres --regid postgres --init-groups)
  # shellcheck disable=SC2016,SC2034 # expanded by the new shell
  confined=(unshare --mount -- sh -c 'mount -t tmpfs tmpfs /dev/shm && exec "$@"' sh)
fi

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

# runs DATA: the server of this data folder lives. The number in its file alone proves nothing: after a crash another
# program may have it, or nobody has looked at the dead process yet (it has no folder then).
runs() {
  local pid
  pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null) && [ "$(readlink "/proc/$pid/cwd")" = "$1" ]
}

# at_work DATA: some process of this server lives. All of them have its data as their working folder.
at_work() { find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$1" 2>/dev/null | grep -q .; }

# bury DIR: clears what a killed server leaves and what keeps the next one from starting: its file, its socket, and its
# small shared memory segment (named by the file's seventh line). A server that lives is left alone.
bury() {
  local file=$1/data/postmaster.pid segment waited
  if [ ! -e "$file" ] || runs "$1/data"; then return 0; fi
  # Its children see its death and end by themselves; while one of them lives, the data is not ours to open.
  for ((waited = 0; waited < 100; waited++)); do
    at_work "$1/data" || break
    sleep 0.1
  done
  segment=$(sed -n '7s/^ *[0-9]* *\([0-9]*\) *$/\1/p' "$file")
  # With root's servers it is gone with its namespace; the number might be somebody else's.
  [ -z "$segment" ] || [ "$(id -u)" = 0 ] || ipcrm --shmem-id "$segment" 2>/dev/null || true
  rm -f "$file" "$1"/socket/.s.PGSQL.*
}
