-- What each writer was told is durable. A database that was restored or failed over knows less than the writer does.
CREATE TABLE berth.ledger_writers (
    writer        varchar(512) NOT NULL PRIMARY KEY,
    acknowledged  bigint       NOT NULL DEFAULT 0 CHECK (acknowledged >= 0),
    digest        bytea        NOT NULL CHECK (octet_length(digest) = 32),
    registered_at timestamptz  NOT NULL DEFAULT now(),
    moved_at      timestamptz  NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
COMMENT ON TABLE berth.ledger_writers IS 'For each replica of Berth: how many records it was told are durable, and a running digest of their hashes.';
COMMENT ON COLUMN berth.ledger_writers.digest IS 'SHA-256 of (digest before, hashes of the records that this batch added, in order); zeros at first.';
