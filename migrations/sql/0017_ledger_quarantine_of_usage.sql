-- Samples may be refused as well. The check is widened, so every row of an older release still passes it.
ALTER TABLE berth.ledger_quarantine DROP CONSTRAINT ledger_quarantine_what_check;
ALTER TABLE berth.ledger_quarantine ADD CONSTRAINT ledger_quarantine_what_check
    CHECK (what IN ('record', 'operation', 'present', 'usage'));
COMMENT ON COLUMN berth.ledger_quarantine.what IS 'record: one of a chain; operation: one that stands alone; present: the state of a TenantContainer; usage: a sample.';
