-- The present: one row for each AccessGrant that ever was. Deleting keeps the row (access, deleted, sync_time).
CREATE TABLE berth.user_roles (
    cluster_id   uuid         NOT NULL,
    id           uuid         NOT NULL,
    user_id      uuid         NOT NULL,
    role         varchar(80)  NOT NULL REFERENCES berth.roles (name),
    namespace_id uuid         NOT NULL,
    namespace    varchar(253) NOT NULL,
    name         varchar(253) NOT NULL,
    granted_by   text         NOT NULL,
    access       varchar(16)  NOT NULL CHECK (access IN ('given', 'expired', 'removed')),
    expires_at   timestamptz  NOT NULL,
    created_at   timestamptz  NOT NULL,
    sync_time    timestamptz  NOT NULL DEFAULT now(),
    deleted      boolean      NOT NULL DEFAULT false,
    generation   bigint       NOT NULL,
    sequence     bigint       NOT NULL CHECK (sequence >= 0),
    epoch        bigint       NOT NULL CHECK (epoch >= 0),
    head         bytea        NOT NULL CHECK (octet_length(head) = 32),
    observed_at  timestamptz  NOT NULL,
    PRIMARY KEY (cluster_id, id),
    FOREIGN KEY (cluster_id, user_id) REFERENCES berth.users (cluster_id, id),
    FOREIGN KEY (cluster_id, namespace_id) REFERENCES berth.namespaces (cluster_id, id),
    CONSTRAINT user_roles_deleted_says_so CHECK (deleted = (access = 'removed'))
);
-- What somebody may do now: most rows are over in the long run.
CREATE INDEX user_roles_active ON berth.user_roles (cluster_id, user_id, expires_at) WHERE access = 'given';
CREATE INDEX user_roles_by_namespace ON berth.user_roles (cluster_id, namespace, name);
COMMENT ON TABLE berth.user_roles IS 'Roles that are given in a namespace until a moment; id is the AccessGrant''s metadata.uid.';
COMMENT ON COLUMN berth.user_roles.granted_by IS 'Who asked for it as it stands, as in the record: user:NAME, guess:NAME or unknown:.';
COMMENT ON COLUMN berth.user_roles.access IS 'As recorded last; whether it is open now, expires_at says too (active_user_roles).';
COMMENT ON COLUMN berth.user_roles.sequence IS 'The chain''s end that this row belongs to; (sequence, epoch, observed_at) never goes back.';
-- Over at its moment, whatever has been recorded of it.
CREATE VIEW berth.active_user_roles AS
SELECT r.cluster_id, r.id, u.kind, u.username, u.full_name, u.email, r.namespace, r.name, r.role, o.permissions,
    r.granted_by, r.created_at, r.expires_at
FROM berth.user_roles r
JOIN berth.users u ON u.cluster_id = r.cluster_id AND u.id = r.user_id
JOIN berth.roles o ON o.name = r.role
WHERE r.access = 'given' AND r.expires_at > now();
COMMENT ON VIEW berth.active_user_roles IS 'Who may do what in which namespace at this moment.';
