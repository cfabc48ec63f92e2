-- The spool of each replica, as it was last heard of: so that the others know whether it still holds what nobody else has.
CREATE TABLE berth.ledger_spools (
    writer        varchar(512) NOT NULL PRIMARY KEY,
    last_entry    bigint       NOT NULL CHECK (last_entry >= 0),
    acknowledged  bigint       NOT NULL CHECK (acknowledged >= 0),
    registered_at timestamptz  NOT NULL DEFAULT now(),
    seen_at       timestamptz  NOT NULL DEFAULT now(),
    gone_at       timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE berth.ledger_spools IS 'For each replica of Berth: the last entry on its spool, and up to which the database has them.';
COMMENT ON COLUMN berth.ledger_spools.acknowledged IS 'Entries up to this number are in the database; those up to last_entry are on the spool only.';
COMMENT ON COLUMN berth.ledger_spools.gone_at IS 'When somebody declared its volume gone for good; null again once its replica is heard of.';
