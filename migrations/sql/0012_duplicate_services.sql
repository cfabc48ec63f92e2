-- What a unique index would forbid, made visible instead (docs/decisions/0005).
CREATE VIEW berth.duplicate_services AS
SELECT cluster_id, tenant_org_id, user_id, service_name, array_agg(id ORDER BY created_at, id) AS ids
FROM berth.tenant_containers
WHERE NOT deleted
GROUP BY cluster_id, tenant_org_id, user_id, service_name
HAVING count(*) > 1;
COMMENT ON VIEW berth.duplicate_services IS 'Services with more than one live row; the oldest is the one that runs.';
