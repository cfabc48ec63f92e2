# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# The one real node: containerd and runc, the kubelet, and kube-proxy with nftables. All that it leaves on the machine
# lies in the state folder, in the cgroup of this cluster's name, and in the few places that node_down names.

containerd_start() {
  # ptp gives each pod a cable of its own to the node, so that every packet is routed: a bridge would need br_netfilter,
  # which not every kernel has, for a Service to answer a pod on the same bridge.
  put "$state/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "$netns", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "$state/ipam",
    "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # native: plain copies. Slower than overlayfs, but it works on every file system, also inside a container.
  # restrict_oom_score_adj: here even root may not lower its score, and no container would start.
  put "$state/containerd.toml" <<TOML
version = 3
root = "$state/containerd/root"
state = "$state/containerd/state"
[grpc]
  address = "$state/containerd.sock"
[plugins.'io.containerd.shim.v1.manager']
  socket_dir = "$sockets"
[plugins.'io.containerd.internal.v1.opt']
  path = "$state/containerd/opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "native"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "$(image_name pause)"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "${program[runc]}"
  Root = "$state/runc"
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$state/cni"
TOML
  start containerd --config "$state/containerd.toml" -- env PATH="${program[containerd-shim-runc-v2]%/*}:$system" "${program[containerd]}" -c "$state/containerd.toml"
}

containerd_ready() {
  until_true containerd 30 "its socket" inside "${program[ctr]}" -a "$state/containerd.sock" version
  "$e2e/cluster/load" pause
}

# cgroup_folders: this cluster's folder in every hierarchy: one with cgroup v2, one for each controller with v1.
cgroup_folders() { awk -v name="$cgroup" '$3 ~ /^cgroup2?$/ { print $2 name }' /proc/self/mounts; }

kubelet_start() {
  local folder
  while read -r folder; do mkdir -p "$folder"; done < <(cgroup_folders)
  # Images cannot be pulled again, so none may ever be collected, and a full disk must not evict a test's pods.
  put "$state/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: $cgroup
enforceNodeAllocatable: [pods]
containerRuntimeEndpoint: unix://$state/containerd.sock
clusterDNS: [$node_ip]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
maxPods: 200
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}
volumePluginDir: $state/kubelet/plugins-exec
podLogsDir: $state/pod-logs
YAML
  # The machine's own resolver is out of reach from here: pods that do not ask for the cluster's names have none.
  put "$state/resolv.conf" </dev/null
  start kubelet --config "$state/kubelet.yaml" -- "${program[kubelet]}" --config "$state/kubelet.yaml" \
    --kubeconfig "$pki/kubelet.kubeconfig" --hostname-override "$node" --node-ip "$node_ip" --root-dir "$state/kubelet" \
    --cert-dir "$state/kubelet/pki"
  start kube-proxy -- "${program[kube-proxy]}" --kubeconfig "$pki/kube-proxy.kubeconfig" --proxy-mode nftables \
    --cluster-cidr "$pod_cidr" --hostname-override "$node"
}

node_ready() {
  until_true kubelet 60 "the node" kube wait --for=condition=Ready "node/$node" --timeout=1s
  until_true kube-proxy 60 "/healthz" inside curl -sf "http://127.0.0.1:10256/healthz"
}

# node_down removes what containerd and the kubelet put outside the state folder. No process lives any more.
node_down() {
  local folder link
  rm -rf "$sockets"
  # The network plugins note every pod in a fixed place, with the path of its namespace, which lies in our state.
  { grep -rlF "\"netns\":\"$state/" /var/lib/cni/results 2>/dev/null || true; } | xargs -r rm -f
  rmdir /var/lib/cni/results /var/lib/cni 2>/dev/null || true
  # So has the kubelet one for device plugins, whatever its root folder is; the last kubelet to live owns it.
  if [ -z "$(pgrep -x kubelet | living)" ]; then
    rm -f /var/lib/kubelet/device-plugins/kubelet.sock
    rmdir /var/lib/kubelet/device-plugins /var/lib/kubelet 2>/dev/null || true
  fi
  # The kubelet's links for log collectors have a fixed place.
  for link in /var/log/containers/*; do
    [[ $(readlink "$link" 2>/dev/null) != "$state"/* ]] || rm -f "$link"
  done
  rmdir /var/log/containers 2>/dev/null || true
  while read -r folder; do
    [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} +
  done < <(cgroup_folders)
}
