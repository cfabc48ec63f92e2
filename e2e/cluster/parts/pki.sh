# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# The cluster's certificates: one authority, one pair for each who speaks to the API server, and the kubeconfigs made of
# them. Made once for a state; a pair is there when its certificate is, which is written last.

pki=$state/pki

pki_up() {
  (
    umask 077
    mkdir -p "$pki"
    authority
    certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,$(
    )DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:$service_ip,IP:$node_ip,IP:127.0.0.1"
    # Who the API server is when it asks the kubelet (kubectl logs and exec), and who administers it.
    certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate admin /O=system:masters/CN=admin
    certificate controller-manager /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    certificate kubelet "/O=system:nodes/CN=system:node:$node"
    certificate kube-proxy /CN=system:kube-proxy
    # Harness, not cluster: these stand for a cloud's own controllers, and may do all.
    certificate kwok /O=system:masters/CN=kwok
    certificate volumes /O=system:masters/CN=volumes
    certificate dns /O=system:masters/CN=dns
    [ -e "$pki/service-accounts.key" ] || openssl ecparam -name prime256v1 -genkey -noout | put "$pki/service-accounts.key"
    local who
    for who in controller-manager scheduler kubelet kube-proxy kwok dns; do
      kubeconfig "$who" "$pki/$who.kubeconfig"
    done
    kubeconfig admin "$state/kubeconfig"
  )
}

authority() {
  [ ! -e "$pki/ca.crt" ] || return 0
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=berth-e2e \
    -addext keyUsage=critical,keyCertSign,digitalSignature -keyout "$pki/ca.key" -out "$pki/ca.crt.new" 2>/dev/null
  mv "$pki/ca.crt.new" "$pki/ca.crt"
}

# certificate NAME SUBJECT [ADDITIONAL-NAMES]: a pair for a client; with names for a server as well.
certificate() {
  [ ! -e "$pki/$1.crt" ] || return 0
  local extensions='keyUsage=critical,digitalSignature
extendedKeyUsage=clientAuth'
  [ -z "${3:-}" ] || extensions+=",serverAuth
subjectAltName=$3"
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "$2" \
    -keyout "$pki/$1.key" -out "$pki/$1.csr" 2>/dev/null
  openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -days 3650 \
    -set_serial "0x$(openssl rand -hex 16)" -extfile <(printf '%s\n' "$extensions") -out "$pki/$1.crt.new" 2>/dev/null
  rm "$pki/$1.csr"
  mv "$pki/$1.crt.new" "$pki/$1.crt"
}

# kubeconfig NAME FILE
kubeconfig() {
  [ ! -e "$2" ] || return 0
  put "$2" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: berth-e2e
  cluster: {server: "$server", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$pki/$1.crt"), client-key-data: $(base64 -w0 "$pki/$1.key")}
contexts:
- name: berth-e2e
  context: {cluster: berth-e2e, user: $1}
current-context: berth-e2e
YAML
}
