# shellcheck shell=bash disable=SC2034,SC2154 # the parts use what is set here, and up sets program
# What up, down, enter and load share: the names of this checkout's cluster, and how a process is started, watched and
# stopped.
#
# Every name that the machine can see (namespace, cgroup, folders) carries an id made from the checkout's path, so that
# two checkouts have clusters at the same time and down can only meet its own. So do several of one checkout, which
# BERTH_CLUSTER tells apart: the one that people use has no name. Nothing here knows a part of the cluster.
set -euo pipefail

e2e=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
top=$(dirname "$e2e")
called=${BERTH_CLUSTER:-}
[[ $called =~ ^[a-z0-9]*$ ]] || {
  printf 'cluster: BERTH_CLUSTER=%s: its name has small letters and digits only\n' "$called" >&2
  exit 1
}
local=$top/.local${called:+/clusters/$called} # what this checkout keeps for this cluster; not in git
id=$(printf '%s' "$top${called:+ $called}" | sha256sum | cut -c1-8)

# The state: BERTH_STATE, else where `up` put it, else the default.
state=${BERTH_STATE:-}
[ -n "$state" ] || state=$(readlink "$local/cluster" 2>/dev/null || printf '/var/lib/berth-e2e/%s' "$id")

netns=berth-$id
cgroup=/berth-$id
sockets=/run/berth-$id # for sockets whose path has to be short

node="node-1"
node_ip=10.240.0.1
pod_cidr=10.88.0.0/16
service_cidr=10.0.0.0/16
service_ip=10.0.0.1 # the API server's own Service
server=https://$node_ip:6443

export PATH=$PATH:/usr/sbin:/sbin # Debian's ip, nft and friends, also for who is root by su

say() { printf 'cluster: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] ||
    fail "this needs root: a real node makes network namespaces, mounts and cgroups, and runs other users' processes"
}

# own_state: refuses a state that another cluster has, as BERTH_STATE names it after `. OTHER/.local/env`, and a folder
# that is no state at all: down removes it whole.
own_state() {
  local owner
  [[ $state == /?* ]] || fail "BERTH_STATE=$state is not an absolute path"
  [ -n "$(ls -A "$state" 2>/dev/null)" ] || return 0
  owner=$(cat "$state/checkout" 2>/dev/null) || fail "BERTH_STATE=$state is not empty and holds no cluster"
  [ "$owner" = "$top${called:+ $called}" ] || fail "$state is the cluster of $owner: unset BERTH_STATE, which a shell took from there"
}

# alone: one up or down at a time. The lock is file 9, which nothing that goes on running may inherit.
alone() {
  mkdir -p "$local"
  exec 9>"$local/lock"
  flock --nonblock 9 || {
    say "another up or down of this cluster is at work, waiting for it"
    flock 9
  }
}

# A proxy that the caller's shell knows is out of reach from inside, and would be asked even for the node's address.
direct=(env -u http_proxy -u https_proxy -u all_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY)

inside() { "${direct[@]}" nsenter --net="/run/netns/$netns" -- "$@"; }

# What daemons get for an environment, whoever calls: where to find mount, nft and the like.
system=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# start NAME [--config FILE]... -- COMMAND...: lets a command run in the namespace, unless it runs already with the same
# arguments and files. Its pid is written by itself before it becomes the command: an `up` that is killed at any moment
# leaves no process that the next one does not know.
start() {
  local name=$1 configs=() digest
  shift
  while [ "$1" != -- ]; do
    configs+=("$2")
    shift 2
  done
  shift
  digest=$({
    printf '%s\0' "$@"
    [ ${#configs[@]} = 0 ] || cat "${configs[@]}"
  } | sha256sum | cut -c1-16)
  if alive "$name"; then
    [ "$(cut -d' ' -f3 "$state/run/$name")" != "$digest" ] || return 0
    say "$name: its settings have changed, starting it anew"
    stop "$name"
  fi
  mkdir -p "$state/run" "$state/log"
  rm -f "$state/run/$name"
  [ ! -e "$state/log/$name.log" ] || mv "$state/log/$name.log" "$state/log/$name.log.before"
  # shellcheck disable=SC2016 # expanded by the new shell
  setsid nsenter --net="/run/netns/$netns" -- bash -c '
    read -r -a stat </proc/$$/stat
    printf "%s %s %s\n" $$ "${stat[21]}" "$1" >"$0.$$" && mv "$0.$$" "$0"
    shift
    exec "$@"' "$state/run/$name" "$digest" env -i PATH="$system" HOME=/root "$@" >"$state/log/$name.log" 2>&1 </dev/null 9>&- &
  # From here on it is known by its file.
  while [ ! -e "$state/run/$name" ] && kill -0 $! 2>/dev/null; do sleep 0.01; done
}

# started PID: when the process began, in clock ticks since boot. With it a pid means one process only.
started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# pid NAME: the process of this name, if it still lives (a dead one whose parent has not looked counts as dead).
pid() {
  local pid since rest
  read -r pid since rest 2>/dev/null <"$state/run/$1" || return 1
  [ "$(started "$pid")" = "$since" ] && [ "$(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null)" != Z ] || return 1
  printf '%s\n' "$pid"
}

alive() { pid "$1" >/dev/null; }

# living: of the pids, those that are more than an entry that nobody has looked at yet.
living() {
  local pid
  while read -r pid; do
    [[ $(sed 's/.*) //;s/ .*//' "/proc/$pid/stat" 2>/dev/null) == [!ZX]* ]] && printf '%s\n' "$pid"
  done
  true
}

stop() {
  local pid waited
  pid=$(pid "$1") || return 0
  kill "$pid" 2>/dev/null || true
  for ((waited = 0; waited < 50; waited++)); do
    alive "$1" || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

# blame NAME WHAT: ends with the last lines of the log concerned.
blame() {
  say "$1: $2; the end of $state/log/$1.log:"
  tail -n 15 "$state/log/$1.log" >&2 || true
  exit 1
}

# until_true NAME SECONDS WHAT COMMAND...: waits for a condition that depends on NAME; a process that ended is not
# waited for.
until_true() {
  local name=$1 end=$((SECONDS + $2)) what=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    alive "$name" || blame "$name" "ended"
    ((SECONDS < end)) || blame "$name" "$what: not within the time allowed"
    sleep 0.1
  done
}

# put FILE: writes standard input to it, in one step.
put() {
  mkdir -p "$(dirname "$1")"
  cat >"$1.new"
  mv "$1.new" "$1"
}

# The administrator's kubectl, for the parts themselves.
kube() { inside "${program[kubectl]}" --kubeconfig "$state/kubeconfig" "$@"; }
