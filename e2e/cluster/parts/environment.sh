# shellcheck shell=bash
# What other shells use: .local/env, and in .local/bin the tools that have to run inside the namespace.

environment_up() {
  mkdir -p "$local/bin"
  ln -sfn "$state" "$local/cluster"
  wrapper kubectl "$bin/kubectl"
  wrapper ctr "$bin/ctr" -a "$state/containerd.sock" -n k8s.io
  wrapper helm "$bin/helm"
  (
    umask 077 # it holds the operator's password
    put "$local/env" <<ENV
# Made by e2e/cluster/up. Use it from any shell of root's: . .local/env
export BERTH_CLUSTER_ID='$id'
export BERTH_NETNS='$netns'
export BERTH_STATE='$state'
export KUBECONFIG='$state/kubeconfig'
export DATABASE_URL='$administrator_url'
export BERTH_OPERATOR_DATABASE_URL='$(operator_url)'
export BERTH_POSTGRES_CA='$postgres/tls/ca.crt'
case ":\$PATH:" in *":$local/bin:"*) ;; *) export PATH="$local/bin:\$PATH" ;; esac
ENV
  )
}

# wrapper NAME COMMAND...: a command of that name that runs inside the namespace. Helm is built by `images` and `demo`,
# not by every `up`, and so may be missing when the wrapper is written.
wrapper() {
  local name=$1
  shift
  put "$local/bin/$name" <<SH
#!/bin/sh
exec nsenter --net=/run/netns/$netns -- $(printf "'%s' " "$@") "\$@"
SH
  chmod +x "$local/bin/$name"
}

environment_down() { rm -rf "$local/env" "$local/bin" "$local/cluster"; }
