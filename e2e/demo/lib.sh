# shellcheck shell=bash disable=SC2034 # used by run and clean
# What the demo's two scripts share: which cluster, which names, and how a step is announced.
#
# Everything that the demo makes is in three namespaces with the label berth.dev/demo=yes, but for what the chart
# installs for the whole cluster; a namespace of these names without the label is somebody's, and is not touched.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
demo=$top/e2e/demo
cluster=${CLUSTER:-own} # own: this checkout's, from `make up`. current: whichever kubectl talks to
system=berth-system     # where Berth is installed
tenants=(demo-acme demo-globex)
label=berth.dev/demo
crd=tenantcontainers.berth.dev

say() { printf '\n\033[1m[%4d s]\033[0m %s\n' "$SECONDS" "$*"; }
note() { printf '         %s\n' "$*"; }
fail() {
  printf '\ndemo: %s\n' "$*" >&2
  exit 1
}
case ${NO_COLOR:-}$(test -t 1 && echo tty) in tty) ;; *) say() { printf '\n[%4d s] %s\n' "$SECONDS" "$*"; } ;; esac

# show COMMAND...: prints the command as one would type it, then runs it.
show() {
  printf '         $ %s\n' "$(printable "$@")"
  "$@" | indent
}
printable() {
  local word words=''
  for word; do case $word in *[[:space:]\"\{\}\;]*) words+=" '$word'" ;; *) words+=" $word" ;; esac done
  printf '%s' "${words# }"
}
indent() { sed 's/^/         /'; }

# ours NAMESPACE: yes, no, or absent.
ours() {
  local found
  found=$(kubectl get namespace "$1" --ignore-not-found -o 'jsonpath={.metadata.name}={.metadata.labels.berth\.dev/demo}')
  case $found in '') echo absent ;; *=yes) echo yes ;; *) echo no ;; esac
}

not_anothers() {
  local namespace whose
  for namespace in "$system" "${tenants[@]}"; do
    whose=$(ours "$namespace")
    [ "$whose" != no ] || fail "namespace $namespace exists and is not the demo's; it is left alone"
  done
}

choose_cluster() {
  case $cluster in
    own)
      [ "$(id -u)" = 0 ] || fail "a real node needs root (e2e/README.md says why). On a cluster of yours: CLUSTER=current make demo"
      ;;
    current)
      command -v kubectl >/dev/null && command -v helm >/dev/null || fail "CLUSTER=current needs kubectl and helm in PATH"
      note "cluster: context $(kubectl config current-context), $(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')"
      kubectl version >/dev/null || fail "that cluster does not answer"
      ;;
    *) fail "CLUSTER=$cluster: it is own or current" ;;
  esac
}
