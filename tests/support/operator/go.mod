// The kinds of the Prometheus operator, for tests/cluster/test_manifests.py: their source is fetched, pinned by go.sum, and not built.
module runway.local/operator

go 1.25.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
