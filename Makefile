# What there is to do here. `make` alone lists it.
# `up` and `down` need root: a real node makes network namespaces, mounts and cgroups, and runs other users' processes.

.DEFAULT_GOAL := help
.PHONY: help demo demo-clean test generate deny prerequisites up down tools images scenarios bench faults fleet variants model-deep

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Berth on a real cluster, two tenants, a vector search, the ledger (root); DEMO=files: without a database
	@e2e/demo/run

demo-clean: ## remove what demo installed; CLUSTER=current: from the cluster that kubectl talks to
	@e2e/demo/clean

test: ## everything that must hold, from format to scenarios with real pods (root; without, all but those)
	@scripts/test

generate: ## write crds/, the chart's copy, what grants can give and the picture in docs/lifecycle.md anew from the code
	@cargo run --quiet -- crds --out crds
	@cargo run --quiet -- crds --out charts/berth/files/crds
	@cargo run --quiet -- roles --out charts/berth/files/grants.yaml
	@BERTH_GENERATE=1 cargo test --quiet --lib the_picture_in_docs_is_drawn_from_the_table >/dev/null

model-deep: ## explore the ledger's protocol further than `test` does; MODEL_STATES bounds it, MODEL_ONLY picks
	@cargo test --release --lib protocol::model::tests::no_interleaving_breaks_an_invariant_deep -- --ignored --nocapture

prerequisites: ## install what is missing from the distribution (root)
	@scripts/prerequisites

up: ## bring up the cluster and PostgreSQL, NODES=real, none or kwok:100 (root); then: . .local/env
	@scripts/prerequisites go postgres cluster
	@e2e/cluster/up

down: ## remove everything that up made (root)
	@e2e/cluster/down

TOOLS ?= etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy volumes \
	containerd containerd-shim-runc-v2 ctr runc coredns kwok helm
tools: ## compile the cluster's tools into the cache, TOOLS="kubectl helm"
	@e2e/tools/build $(TOOLS)

IMAGES ?= pause testservice weaviate
images: ## make the images of the end-to-end cluster, IMAGES="testservice"
	@e2e/images/build $(IMAGES)

scenarios: ## what users keep, with real pods; 200 services; the same on files (root; brings the cluster up)
	@e2e/scenarios

faults: ## what Berth has to survive, row by row, ROW=6, LEVEL=real, SECONDS=3600, ALLOW_UNCOVERED=1 (real ones: root)
	@ROW='$(ROW)' LEVEL='$(LEVEL)' BERTH_FAULT_SECONDS='$(SECONDS)' ALLOW_UNCOVERED='$(ALLOW_UNCOVERED)' e2e/faults/run

fleet: ## a rollout over 500 services on simulated nodes, the operator killed ten times in it (root), COUNT=60
	@e2e/fleet $(or $(COUNT),500)

variants: ## break the write path in twenty ways, and see a test notice each (under a minute after its build), VARIANT=NAME
	@VARIANT='$(VARIANT)' e2e/faults/variants

bench: ## measure apply to Running, Berth's share of it, and 200 services at once (root; brings the cluster up)
	@e2e/bench/run

deny: ## check the dependencies' licences, sources and advisories
	@scripts/deny
