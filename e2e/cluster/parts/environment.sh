# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# What other shells use: .local/env, and in .local/bin the tools that have to run inside the namespace.

environment_up() {
  mkdir -p "$local/bin"
  ln -sfn "$state" "$local/cluster"
  wrapper kubectl "'${program[kubectl]}'"
  [ -z "${program[ctr]:-}" ] || wrapper ctr "'${program[ctr]}' -a '$state/containerd.sock' -n k8s.io"
  # Nothing in an up needs Helm, and it takes a while to build: the first who calls it waits for that.
  # shellcheck disable=SC2016 # expanded by the wrapper
  wrapper helm '"$helm"' "helm=\$('$e2e/tools/build' helm)"
  (
    umask 077 # it holds the operator's password
    put "$local/env" <<ENV
# Made by e2e/cluster/up. To be sourced by any shell of root's.
export BERTH_CLUSTER='$called'
export BERTH_CLUSTER_ID='$id'
export BERTH_NETNS='$netns'
export BERTH_STATE='$state'
export KUBECONFIG='$state/kubeconfig'
export DATABASE_URL='$administrator_url'
export BERTH_OPERATOR_DATABASE_URL='$(operator_url)'
export BERTH_POSTGRES_CA='$postgres/tls/ca.crt'
case "\$PATH" in "$local/bin:"*) ;; *) export PATH="$local/bin:\$PATH" ;; esac
ENV
  )
}

# wrapper NAME COMMAND [BEFORE]: a command of that name that runs inside the namespace, after a line of shell.
wrapper() {
  put "$local/bin/$1" <<SH
#!/bin/sh
set -e
${3:-}
exec ${direct[*]} nsenter --net=/run/netns/$netns -- $2 "\$@"
SH
  chmod +x "$local/bin/$1"
}

environment_down() { rm -rf "${local:?}"/{env,bin,cluster}; }
