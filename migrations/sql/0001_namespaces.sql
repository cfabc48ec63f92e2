-- Namespaces that hold, or held, a TenantContainer. A namespace that is made again has another uid, so another row.
CREATE TABLE berth.namespaces (
    cluster_id  uuid         NOT NULL,
    id          uuid         NOT NULL,
    name        varchar(253) NOT NULL,
    labels      jsonb        NOT NULL DEFAULT '{}',
    observed_at timestamptz  NOT NULL,
    sync_time   timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster_id, id),
    CONSTRAINT namespaces_labels_are_a_map CHECK (jsonb_typeof(labels) = 'object')
);
CREATE INDEX namespaces_by_name ON berth.namespaces (cluster_id, name);
CREATE INDEX namespaces_by_label ON berth.namespaces USING gin (labels jsonb_path_ops);
COMMENT ON TABLE berth.namespaces IS 'Namespaces with their labels; id is metadata.uid.';
COMMENT ON COLUMN berth.namespaces.observed_at IS 'When Berth saw it so; an older sight never replaces a newer one.';
COMMENT ON COLUMN berth.namespaces.sync_time IS 'When this row was last written.';
