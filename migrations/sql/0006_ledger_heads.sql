-- The end of each chain. Unpartitioned, because it alone decides what may be added (compare-and-set).
CREATE TABLE berth.ledger_heads (
    cluster_id uuid        NOT NULL,
    uid        uuid        NOT NULL,
    sequence   bigint      NOT NULL CHECK (sequence >= 1),
    epoch      bigint      NOT NULL CHECK (epoch >= 0),
    hash       bytea       NOT NULL CHECK (octet_length(hash) = 32),
    prev       bytea       NOT NULL CHECK (octet_length(prev) = 32),
    state      varchar(16) CHECK (state IN ('pending', 'running', 'paused', 'stopped', 'failed', 'deleted')),
    at         timestamptz NOT NULL,
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, uid)
) WITH (fillfactor = 70);
CREATE INDEX ledger_heads_by_epoch ON berth.ledger_heads (cluster_id, epoch DESC);
COMMENT ON TABLE berth.ledger_heads IS 'The last record of each chain; moved only by compare-and-set on (sequence, hash).';
COMMENT ON COLUMN berth.ledger_heads.at IS 'The last record''s own time: which month of container_status_history holds it.';
