module berth.dev/e2e/cluster/volumes

go 1.26.0
