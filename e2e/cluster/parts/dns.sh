# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# The cluster's names: CoreDNS at the node's address, started like the other daemons rather than as pods, which would
# need an image of it and make every `up` wait for them. It knows no name outside the cluster: there is no way out.

dns_start() {
  put "$state/Corefile" <<CONF
.:53 {
  bind $node_ip
  errors
  ready 127.0.0.1:8181
  cache 5
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $pki/dns.kubeconfig
    ttl 5
  }
}
CONF
  start coredns --config "$state/Corefile" -- "${program[coredns]}" -conf "$state/Corefile"
}

dns_ready() { until_true coredns 60 "/ready" inside curl -sf http://127.0.0.1:8181/ready; }
