-- Whether a chain is known to end in a terminal record that was shown, and under which epoch that was noted. Every other
-- move of the head opens it again. Null in every row that an older release wrote, which is right: it closed none.
ALTER TABLE berth.ledger_heads ADD COLUMN closed_epoch bigint CHECK (closed_epoch >= 0);
COMMENT ON COLUMN berth.ledger_heads.closed_epoch IS 'The epoch under which the chain was closed: its last record ends its object, and was shown. Null while it is open.';
