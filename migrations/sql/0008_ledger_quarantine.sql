-- What the database refused, kept as text so that nothing in it can be refused again.
CREATE TABLE berth.ledger_quarantine (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    writer         text        NOT NULL,
    cluster_id     uuid        NOT NULL,
    uid            uuid        NOT NULL,
    what           text        NOT NULL CHECK (what IN ('record', 'operation', 'present')),
    hash           bytea,
    sqlstate       text,
    error          text        NOT NULL,
    entry          text        NOT NULL,
    details        text,
    times          integer     NOT NULL DEFAULT 1,
    resolved_at    timestamptz,
    CONSTRAINT ledger_quarantine_once UNIQUE (cluster_id, uid, what, hash)
);
CREATE INDEX ledger_quarantine_open ON berth.ledger_quarantine (quarantined_at) WHERE resolved_at IS NULL;
COMMENT ON TABLE berth.ledger_quarantine IS 'Entries that PostgreSQL refused: somebody has to look at each.';
COMMENT ON COLUMN berth.ledger_quarantine.what IS 'record: one of a chain; operation: one that stands alone; present: the state of a TenantContainer.';
COMMENT ON COLUMN berth.ledger_quarantine.hash IS 'The record''s hash, or that of the entry''s text.';
COMMENT ON COLUMN berth.ledger_quarantine.times IS 'How often it was sent.';
