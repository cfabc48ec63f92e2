# shellcheck shell=bash disable=SC2154 # the names come from lib.sh
# Dynamic volumes: the default StorageClass `standard`, and the small provisioner behind it (cluster/volumes), which also
# grows claims.

volumes_up() {
  mkdir -p "$state/volumes"
  start volumes -- "${program[volumes]}" -server "$server" -dir "$state/volumes" \
    -ca "$pki/ca.crt" -cert "$pki/volumes.crt" -key "$pki/volumes.key"
  kube apply -f - >/dev/null <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: berth.dev/volumes
allowVolumeExpansion: true
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
YAML
}
