# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# Simulated nodes beside the real one: objects that kwok keeps alive, and on which it calls pods ready that never run.
# They are tainted, so that only pods which ask for them land there, and annotated, because kwok manages every node of a
# cluster unless it is told which: it would report the real node's pods as running too.

kwok_up() {
  local count=$1 stages=$e2e/cluster/parts/kwok-stages.yaml have
  start kwok --config "$stages" -- "${program[kwok]}" --kubeconfig "$pki/kwok.kubeconfig" --config "$stages" \
    --manage-all-nodes=false --manage-nodes-with-annotation-selector kwok.x-k8s.io/node=fake \
    --node-ip "$node_ip" --cidr 10.89.0.0/16 --node-lease-duration-seconds 40 --server-address 127.0.0.1:10247 --v WARN
  until_true kwok 30 "/healthz" inside curl -sf http://127.0.0.1:10247/healthz
  have=$(kube get nodes -l type=kwok -o name | wc -l)
  if ((have > count)); then
    kube get nodes -l type=kwok -o name | sort -V | tail -n +"$((count + 1))" | inside xargs -r "${program[kubectl]}" \
      --kubeconfig "$state/kubeconfig" delete --wait=false >/dev/null
  elif ((have < count)); then
    kwok_nodes "$((have + 1))" "$count" | kube create -f - >/dev/null
  fi
  kube wait --for=condition=Ready nodes -l type=kwok --timeout=120s >/dev/null || blame kwok "its nodes are not ready"
}

kwok_nodes() {
  local i
  for ((i = $1; i <= $2; i++)); do
    cat <<YAML
---
apiVersion: v1
kind: Node
metadata:
  name: fake-$i
  annotations: {kwok.x-k8s.io/node: fake, node.alpha.kubernetes.io/ttl: "0"}
  labels: {type: kwok, kubernetes.io/hostname: fake-$i, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
spec:
  taints: [{key: kwok.x-k8s.io/node, value: fake, effect: NoSchedule}]
status:
  allocatable: {cpu: "32", memory: 256Gi, ephemeral-storage: 1Ti, pods: "110"}
  capacity: {cpu: "32", memory: 256Gi, ephemeral-storage: 1Ti, pods: "110"}
YAML
  done
}
