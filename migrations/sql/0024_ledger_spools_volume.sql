-- Which volume a row tells of, by the id that stands on it, and when somebody has last read that to its end.
ALTER TABLE berth.ledger_spools ADD COLUMN volume uuid, ADD COLUMN read_at timestamptz;
-- Until now, a volume was declared gone by whoever had read it.
UPDATE berth.ledger_spools SET read_at = gone_at WHERE gone_at IS NOT NULL AND acknowledged >= last_entry;
COMMENT ON COLUMN berth.ledger_spools.volume IS 'The id in the file _volume of the spool; null where no release that knows of it has told of the row.';
COMMENT ON COLUMN berth.ledger_spools.read_at IS 'When berth replay has last read the volume to its end; unless its replica has told of it since, the database has all of it.';
