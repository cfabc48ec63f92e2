-- Who did what, when, to what: a row when an operation starts and one when it finishes, with one operation id, which
-- container_status_history repeats. Insert-only, by month, as the history is.
-- A phase of an operation is told once, whenever: "at" is in the key only because it decides the month. The writer asks
-- the key's index of every month, under a lock (docs/decisions/0004).
CREATE TABLE berth.operation_logs (
    v                smallint     NOT NULL,
    phase            varchar(8)   NOT NULL CHECK (phase IN ('start', 'finish')),
    cluster_id       uuid         NOT NULL,
    target_uid       uuid         NOT NULL,
    epoch            bigint       NOT NULL CHECK (epoch >= 0),
    at               timestamptz  NOT NULL,
    from_state       varchar(16)
        CHECK (from_state IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    to_state         varchar(16)  CHECK (to_state IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    action           varchar(64)  NOT NULL,
    actor            varchar(256) NOT NULL,
    generation       bigint       NOT NULL,
    operation_id     uuid         NOT NULL,
    details_hash     bytea        NOT NULL CHECK (octet_length(details_hash) = 32),
    hash             bytea        NOT NULL CHECK (octet_length(hash) = 32),
    details          jsonb,
    target_kind      varchar(63)  NOT NULL,
    target_namespace varchar(253) NOT NULL,
    target_name      varchar(253) NOT NULL,
    succeeded        boolean,
    duration_ms      bigint       CHECK (duration_ms >= 0),
    recorded_at      timestamptz  NOT NULL DEFAULT now(),
    search           tsvector     GENERATED ALWAYS AS (
        to_tsvector('simple', action || ' ' || actor || ' ' || target_kind || ' ' || target_namespace || ' ' || target_name)
        || jsonb_to_tsvector('simple', coalesce(details, 'null'), '["string", "key"]')
    ) STORED,
    PRIMARY KEY (cluster_id, operation_id, phase, at)
) PARTITION BY RANGE (at);
CREATE INDEX operation_logs_by_user ON berth.operation_logs (actor, action, at);
CREATE INDEX operation_logs_by_target ON berth.operation_logs (target_uid, at);
CREATE INDEX operation_logs_failed ON berth.operation_logs (at) WHERE NOT succeeded;
CREATE INDEX operation_logs_search ON berth.operation_logs USING gin (search);
COMMENT ON TABLE berth.operation_logs IS 'Audit: the start and the finish of every operation; never updated, never deleted from.';
COMMENT ON COLUMN berth.operation_logs.search IS 'Full text: WHERE search @@ websearch_to_tsquery(''simple'', ''…'').';
