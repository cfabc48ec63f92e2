-- Replicas (pods). One that is gone stays, as terminated.
CREATE TABLE berth.containers (
    cluster_id          uuid         NOT NULL,
    id                  uuid         NOT NULL,
    tenant_container_id uuid         NOT NULL,
    namespace_id        uuid         NOT NULL,
    namespace           varchar(253) NOT NULL,
    name                varchar(253) NOT NULL,
    node                varchar(253),
    image               varchar(600) NOT NULL,
    image_digest        varchar(600) NOT NULL DEFAULT '',
    cpu                 bigint       NOT NULL CHECK (cpu >= 0),
    memory              bigint       NOT NULL CHECK (memory >= 0),
    gpu_count           integer      NOT NULL CHECK (gpu_count >= 0),
    status              varchar(16)  NOT NULL CHECK (status IN ('waiting', 'running', 'terminated')),
    reason              varchar(1024),
    ready               boolean      NOT NULL,
    restarts            integer      NOT NULL CHECK (restarts >= 0),
    started_at          timestamptz,
    finished_at         timestamptz,
    observed_at         timestamptz  NOT NULL,
    sync_time           timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, id),
    FOREIGN KEY (cluster_id, tenant_container_id) REFERENCES berth.tenant_containers (cluster_id, id),
    FOREIGN KEY (cluster_id, namespace_id) REFERENCES berth.namespaces (cluster_id, id),
    FOREIGN KEY (cluster_id, image, image_digest) REFERENCES berth.container_images (cluster_id, image, digest)
);
CREATE INDEX containers_by_namespace_status ON berth.containers (namespace_id, status);
CREATE INDEX containers_of_tenant_container ON berth.containers (cluster_id, tenant_container_id);
-- What runs where: terminated rows outnumber running ones soon, so the index holds only the running.
CREATE INDEX containers_running ON berth.containers (cluster_id, node) WHERE status = 'running';
CREATE INDEX containers_by_image ON berth.containers (cluster_id, image, image_digest);
COMMENT ON TABLE berth.containers IS 'Each replica (pod) that ran for a TenantContainer; id is the pod''s uid.';
COMMENT ON COLUMN berth.containers.cpu IS 'As asked for, in thousandths of a core.';
COMMENT ON COLUMN berth.containers.finished_at IS 'When it ended; for a pod that vanished unseen, when it was first missed.';
