-- Whoever was given access, or gave it: people, groups and service accounts, by the names that the API server knows.
CREATE TABLE berth.users (
    cluster_id uuid         NOT NULL,
    id         uuid         NOT NULL,
    kind       varchar(16)  NOT NULL CHECK (kind IN ('User', 'Group', 'ServiceAccount')),
    username   text         NOT NULL,
    full_name  varchar(255),
    email      varchar(255),
    status     varchar(16)  NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    named_at   timestamptz,
    created_at timestamptz  NOT NULL DEFAULT now(),
    sync_time  timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, id)
);
CREATE INDEX users_by_name ON berth.users (username);
COMMENT ON TABLE berth.users IS 'Whoever was given access, or gave it. id follows from kind and username: UUID version 5 in the cluster''s id.';
COMMENT ON COLUMN berth.users.username IS 'As the API server''s authentication knows it: of a service account, system:serviceaccount:NAMESPACE:NAME.';
COMMENT ON COLUMN berth.users.full_name IS 'What people call them, as a grant said last.';
COMMENT ON COLUMN berth.users.named_at IS 'When full_name and email were said; an older grant never replaces a newer one''s.';
COMMENT ON COLUMN berth.users.status IS 'An administrator''s; Berth writes new rows as active, and never changes it.';
