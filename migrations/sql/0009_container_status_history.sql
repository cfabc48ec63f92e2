-- The chains: every record of every object, insert-only, by month of the record's own time. No default partition:
-- months are made by berth.make_partitions. The columns up to details_hash are the record's envelope; they suffice to
-- make its canonical bytes anew. No foreign key: history outlives what it tells of.
CREATE TABLE berth.container_status_history (
    v            smallint     NOT NULL,
    kind         varchar(32)  NOT NULL CHECK (kind IN ('transition', 'unobserved', 'lost', 'import', 'checkpoint',
                                                       'resolution', 'rollout', 'quota', 'grant')),
    cluster_id   uuid         NOT NULL,
    uid          uuid         NOT NULL,
    sequence     bigint       NOT NULL CHECK (sequence >= 1),
    epoch        bigint       NOT NULL CHECK (epoch >= 0),
    at           timestamptz  NOT NULL,
    from_state   varchar(16)  CHECK (from_state IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    to_state     varchar(16)  CHECK (to_state IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    reason       varchar(64)  NOT NULL,
    actor        varchar(256) NOT NULL,
    generation   bigint       NOT NULL,
    operation_id uuid,
    prev         bytea        NOT NULL CHECK (octet_length(prev) = 32),
    details_hash bytea        NOT NULL CHECK (octet_length(details_hash) = 32),
    hash         bytea        NOT NULL CHECK (octet_length(hash) = 32),
    details      jsonb,
    object_kind  varchar(63)  NOT NULL,
    namespace    varchar(253) NOT NULL,
    name         varchar(253) NOT NULL,
    recorded_at  timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, uid, sequence, hash, at)
) PARTITION BY RANGE (at);
CREATE INDEX container_status_history_by_name ON berth.container_status_history (namespace, name, at);
CREATE INDEX container_status_history_by_operation ON berth.container_status_history (operation_id)
    WHERE operation_id IS NOT NULL;
COMMENT ON TABLE berth.container_status_history IS 'Every record of every chain; never updated, never deleted from.';
COMMENT ON COLUMN berth.container_status_history.details IS 'Message, diff and payload; null where only the envelope survived. details_hash is the digest of its canonical text.';
COMMENT ON COLUMN berth.container_status_history.recorded_at IS 'When the database took it; at is when it happened.';
