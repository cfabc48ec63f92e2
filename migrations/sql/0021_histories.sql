-- The chains of the kinds that have no lifecycle, each to be read by itself. Nothing is stored twice.
CREATE INDEX container_status_history_of_kinds ON berth.container_status_history (kind, at)
    WHERE kind IN ('rollout', 'quota', 'grant');
CREATE VIEW berth.grant_history AS
SELECT cluster_id, uid, namespace, name, sequence, at, reason, actor, generation, operation_id, details, hash, recorded_at
FROM berth.container_status_history WHERE kind = 'grant';
COMMENT ON VIEW berth.grant_history IS 'Access given, changed, ended and taken: one row a record; uid is the AccessGrant''s.';
CREATE VIEW berth.rollout_history AS
SELECT cluster_id, uid, namespace, name, sequence, at, reason, actor, generation, operation_id, details, hash, recorded_at
FROM berth.container_status_history WHERE kind = 'rollout';
COMMENT ON VIEW berth.rollout_history IS 'The steps of rollouts: one row a record; object_kind and uid in container_status_history say of what.';
CREATE VIEW berth.quota_history AS
SELECT cluster_id, uid, namespace, name, sequence, at, reason, actor, generation, operation_id, details, hash, recorded_at
FROM berth.container_status_history WHERE kind = 'quota';
COMMENT ON VIEW berth.quota_history IS 'Reservations and releases: one row a record.';
