-- What a grant gives, as a permissions object. The built-in roles are here from the start; a grant with an object of its own
-- brings a role that is named after its content, so that the same object is the same role.
CREATE TABLE berth.roles (
    name        varchar(80) NOT NULL PRIMARY KEY,
    is_system   boolean     NOT NULL DEFAULT false,
    permissions jsonb       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT roles_permissions_are_a_map CHECK (jsonb_typeof(permissions) = 'object')
);
CREATE INDEX roles_by_permission ON berth.roles USING gin (permissions);
COMMENT ON TABLE berth.roles IS 'Roles and their permissions; is_system are the built-in ones.';
COMMENT ON COLUMN berth.roles.name IS 'admin, operator, read-only, or permissions- and the SHA-256 of the object''s canonical text.';
INSERT INTO berth.roles (name, is_system, permissions) VALUES
    ('admin', true, '{"config_maps": ["read", "create", "update", "delete"], "containers": ["read", "create", "update", "delete"], "logs": ["read"], "monitoring": ["read"], "namespaces": ["read"], "secrets": ["read", "create", "update", "delete"], "volumes": ["read", "create", "update", "delete"]}'),
    ('operator', true, '{"config_maps": ["read", "update"], "containers": ["read", "update"], "logs": ["read"], "monitoring": ["read"], "namespaces": ["read"], "volumes": ["read"]}'),
    ('read-only', true, '{"config_maps": ["read"], "containers": ["read"], "logs": ["read"], "monitoring": ["read"], "namespaces": ["read"], "volumes": ["read"]}');
