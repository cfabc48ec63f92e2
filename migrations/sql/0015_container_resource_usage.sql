-- What each replica used, sample by sample: insert-only, by month. A gap is a gap, never a zero.
CREATE TABLE berth.container_resource_usage (
    cluster_id          uuid        NOT NULL,
    container_id        uuid        NOT NULL,
    resource            varchar(32) NOT NULL CHECK (resource IN ('cpu', 'memory', 'network_received', 'network_sent',
                                                                 'disk', 'gpu')),
    at                  timestamptz NOT NULL,
    tenant_container_id uuid        NOT NULL,
    value               bigint      NOT NULL CHECK (value >= 0),
    PRIMARY KEY (cluster_id, container_id, resource, at)
) PARTITION BY RANGE (at);
-- Samples come nearly in the order of their time, so a summary of each block finds a span of it, at a thousandth of the
-- size of a tree.
CREATE INDEX container_resource_usage_by_time ON berth.container_resource_usage USING brin (at);
COMMENT ON TABLE berth.container_resource_usage IS 'Samples of what each replica (pod) uses.';
COMMENT ON COLUMN berth.container_resource_usage.container_id IS 'The pod''s uid, as in containers.id; no foreign key, for a sample may come first.';
COMMENT ON COLUMN berth.container_resource_usage.value IS 'cpu and gpu: thousandths; memory and disk: bytes; network: bytes since the replica''s start.';
