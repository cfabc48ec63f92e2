# shellcheck shell=bash
# To be sourced by scripts: what `up` has left for other shells (.local/env), of the cluster that BERTH_CLUSTER names.
environment=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.local/${BERTH_CLUSTER:+clusters/$BERTH_CLUSTER/}env
[ -e "$environment" ] || {
  printf 'there is no cluster: %s is made by e2e/cluster/up\n' "$environment" >&2
  exit 1
}
# shellcheck source=/dev/null
source "$environment"
