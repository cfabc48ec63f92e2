# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# etcd, the API server, the controller manager and the scheduler, started directly with the flags that a small real
# cluster has: Node and RBAC authorization, the default admission, bound service account tokens.

etcd_up() {
  # No fsync: it is the slowest thing on a shared disk, and a cluster of tests that loses power is made anew.
  # A killed process loses nothing by it, since the kernel still holds what was written.
  start etcd -- "${program[etcd]}" --data-dir "$state/etcd" --unsafe-no-fsync --quota-backend-bytes 4294967296 \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --log-level warn
  until_true etcd 30 "etcd's health" inside curl -sf http://127.0.0.1:2379/health
}

# Every write by Berth's own account, one line each in log/audit.log, and nothing else: tests that count writes read it,
# since metrics do not tell who wrote.
audit_policy() {
  put "$state/audit-policy.yaml" <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: Metadata
  users: ["system:serviceaccount:berth-system:berth"]
  verbs: [create, update, patch, delete, deletecollection]
- level: None
YAML
}

api_server_start() {
  mkdir -p "$state/log"
  audit_policy
  start kube-apiserver --config "$state/audit-policy.yaml" -- "${program[kube-apiserver]}" --etcd-servers http://127.0.0.1:2379 \
    --advertise-address "$node_ip" --secure-port 6443 --service-cluster-ip-range "$service_cidr" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
    --client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
    --kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-key-file "$pki/service-accounts.key" \
    --service-account-signing-key-file "$pki/service-accounts.key" \
    --audit-policy-file "$state/audit-policy.yaml" --audit-log-path "$state/log/audit.log" \
    --audit-log-maxsize 64 --audit-log-maxbackup 1
}

api_server_ready() {
  until_true kube-apiserver 90 "the API server's /readyz" inside curl -sf --cacert "$pki/ca.crt" "$server/readyz"
}

# Only behind a ready API server: before its own roles are in place they are refused once, and then end.
controllers_start() {
  start kube-controller-manager -- "${program[kube-controller-manager]}" \
    --kubeconfig "$pki/controller-manager.kubeconfig" --leader-elect=false --use-service-account-credentials \
    --service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
    --cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key" \
    --authentication-kubeconfig "$pki/controller-manager.kubeconfig" \
    --authorization-kubeconfig "$pki/controller-manager.kubeconfig" \
    --client-ca-file "$pki/ca.crt" --cert-dir "$state/controller-manager"
  start kube-scheduler -- "${program[kube-scheduler]}" \
    --kubeconfig "$pki/scheduler.kubeconfig" --leader-elect=false \
    --authentication-kubeconfig "$pki/scheduler.kubeconfig" \
    --authorization-kubeconfig "$pki/scheduler.kubeconfig" \
    --client-ca-file "$pki/ca.crt" --cert-dir "$state/scheduler"
}

controllers_ready() {
  until_true kube-controller-manager 60 "/healthz" inside curl -sfk https://127.0.0.1:10257/healthz
  until_true kube-scheduler 60 "/healthz" inside curl -sfk https://127.0.0.1:10259/healthz
  # No pod can be made in a namespace before the controllers have put its account there.
  until_true kube-controller-manager 60 "the default service account" kube get serviceaccount default
}
