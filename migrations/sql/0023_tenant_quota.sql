-- The present: what each organisation may have, and what it has reserved. A row for each TenantQuota that ever was.
CREATE TABLE berth.tenant_quota (
    cluster_id       uuid         NOT NULL,
    id               uuid         NOT NULL,
    name             varchar(253) NOT NULL,
    tenant_org_id    varchar(255) NOT NULL,
    containers_limit bigint       CHECK (containers_limit >= 0),
    containers_used  bigint       NOT NULL DEFAULT 0,
    replicas_limit   bigint       CHECK (replicas_limit >= 0),
    replicas_used    bigint       NOT NULL DEFAULT 0,
    cpu_limit        bigint       CHECK (cpu_limit >= 0),
    cpu_used         bigint       NOT NULL DEFAULT 0,
    memory_limit     bigint       CHECK (memory_limit >= 0),
    memory_used      bigint       NOT NULL DEFAULT 0,
    disk_limit       bigint       CHECK (disk_limit >= 0),
    disk_used        bigint       NOT NULL DEFAULT 0,
    gpu_limit        bigint       CHECK (gpu_limit >= 0),
    gpu_used         bigint       NOT NULL DEFAULT 0,
    vectors_limit    bigint       CHECK (vectors_limit >= 0),
    vectors_used     bigint       NOT NULL DEFAULT 0,
    waiting          bigint       NOT NULL DEFAULT 0,
    set_by           text         NOT NULL,
    sync_time        timestamptz  NOT NULL DEFAULT now(),
    deleted          boolean      NOT NULL DEFAULT false,
    sequence         bigint       NOT NULL CHECK (sequence >= 0),
    epoch            bigint       NOT NULL CHECK (epoch >= 0),
    head             bytea        NOT NULL CHECK (octet_length(head) = 32),
    observed_at      timestamptz  NOT NULL,
    PRIMARY KEY (cluster_id, id)
) WITH (fillfactor = 70);
CREATE INDEX tenant_quota_by_org ON berth.tenant_quota (cluster_id, tenant_org_id) WHERE NOT deleted;
COMMENT ON TABLE berth.tenant_quota IS 'Limits of organisations and what they have reserved; id is the TenantQuota''s metadata.uid.';
COMMENT ON COLUMN berth.tenant_quota.containers_limit IS 'The most of it; null where it is not limited. CPU in thousandths of a core, memory and disk in bytes.';
COMMENT ON COLUMN berth.tenant_quota.containers_used IS 'What is reserved, as seen at observed_at: some ten seconds behind while the database is there, and as far as an outage is long.';
COMMENT ON COLUMN berth.tenant_quota.waiting IS 'Services, or changes of services, that wait for room.';
COMMENT ON COLUMN berth.tenant_quota.set_by IS 'Who set the limits as they stand, as in the record: user:NAME, guess:NAME or unknown:.';
COMMENT ON COLUMN berth.tenant_quota.sequence IS 'The chain''s end that this row belongs to; (sequence, epoch, observed_at) never goes back.';
