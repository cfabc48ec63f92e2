-- The present: one row for each TenantContainer that ever was. Deleting keeps the row (deleted, status, sync_time).
CREATE TABLE berth.tenant_containers (
    cluster_id    uuid         NOT NULL,
    id            uuid         NOT NULL,
    tenant_org_id varchar(255) NOT NULL,
    user_id       varchar(255) NOT NULL,
    service_name  varchar(255) NOT NULL,
    namespace_id  uuid         NOT NULL,
    namespace     varchar(253) NOT NULL,
    name          varchar(253) NOT NULL,
    replicas      integer      NOT NULL CHECK (replicas >= 0),
    cpu           bigint       NOT NULL CHECK (cpu >= 0),
    memory        bigint       NOT NULL CHECK (memory >= 0),
    disk          bigint       NOT NULL CHECK (disk >= 0),
    gpu_count     integer      NOT NULL CHECK (gpu_count >= 0),
    dimension     integer      CHECK (dimension >= 0),
    vector_count  bigint       CHECK (vector_count >= 0),
    status        varchar(16)  CHECK (status IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    created_at    timestamptz  NOT NULL,
    sync_time     timestamptz  NOT NULL DEFAULT now(),
    deleted       boolean      NOT NULL DEFAULT false,
    spec          jsonb        NOT NULL,
    generation    bigint       NOT NULL,
    sequence      bigint       NOT NULL CHECK (sequence >= 0),
    epoch         bigint       NOT NULL CHECK (epoch >= 0),
    head          bytea        NOT NULL CHECK (octet_length(head) = 32),
    observed_at   timestamptz  NOT NULL,
    PRIMARY KEY (cluster_id, id),
    FOREIGN KEY (cluster_id, namespace_id) REFERENCES berth.namespaces (cluster_id, id),
    CONSTRAINT tenant_containers_deleted_says_so CHECK (deleted = (status IS NOT DISTINCT FROM 'deleted'))
);
-- "The service of this user": what berth get and the API ask; the live row first, else the latest deleted one.
CREATE INDEX tenant_containers_by_user_service ON berth.tenant_containers (user_id, service_name, deleted, created_at DESC);
CREATE INDEX tenant_containers_by_org ON berth.tenant_containers (tenant_org_id);
-- Deleted rows become the most in the long run; the questions about them are few and by time.
CREATE INDEX tenant_containers_deleted ON berth.tenant_containers (sync_time) WHERE deleted;
CREATE INDEX tenant_containers_by_namespace ON berth.tenant_containers (cluster_id, namespace, name);
-- Not unique on purpose (docs/decisions/0005): the API refuses a second live object, and a replay after an outage may
-- bring its row before the first one's deletion. A row that the database refuses must not cost a record its place.
CREATE INDEX tenant_containers_live ON berth.tenant_containers (cluster_id, tenant_org_id, user_id, service_name)
    WHERE NOT deleted;
COMMENT ON TABLE berth.tenant_containers IS 'The present state of each TenantContainer, deleted ones included; id is metadata.uid.';
COMMENT ON COLUMN berth.tenant_containers.cpu IS 'For each replica, in thousandths of a core.';
COMMENT ON COLUMN berth.tenant_containers.memory IS 'For each replica, in bytes.';
COMMENT ON COLUMN berth.tenant_containers.disk IS 'For each replica, in bytes.';
COMMENT ON COLUMN berth.tenant_containers.status IS 'The lifecycle''s state; null before the first record.';
COMMENT ON COLUMN berth.tenant_containers.sync_time IS 'When this row was last written.';
COMMENT ON COLUMN berth.tenant_containers.sequence IS 'The chain''s end that this row belongs to; (sequence, epoch, observed_at) never goes back.';
