-- The vector indexes of a service: as declared in its spec, and as counted by asking the engine.
CREATE TABLE berth.index_metadata (
    cluster_id          uuid         NOT NULL,
    tenant_container_id uuid         NOT NULL,
    name                varchar(255) NOT NULL,
    dimension           integer      NOT NULL CHECK (dimension > 0),
    metric              varchar(32)  NOT NULL
        CHECK (metric IN ('cosine', 'dot', 'l2-squared', 'manhattan', 'hamming')),
    declared_count      bigint       CHECK (declared_count >= 0),
    observed_count      bigint       CHECK (observed_count >= 0),
    sync_time           timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, tenant_container_id, name),
    FOREIGN KEY (cluster_id, tenant_container_id) REFERENCES berth.tenant_containers (cluster_id, id)
);
COMMENT ON TABLE berth.index_metadata IS 'Vector indexes of each TenantContainer; one that leaves the spec leaves this table.';
COMMENT ON COLUMN berth.index_metadata.observed_count IS 'Counted by asking the engine; null until somebody does.';
