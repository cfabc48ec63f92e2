-- The present: how far each rollout, each of its waves and each of its targets is, and what came of them. A row for each, of
-- every revision that a Deployment ever rolled out.
CREATE TABLE berth.deployment_status (
    cluster_id       uuid         NOT NULL,
    id               uuid         NOT NULL,
    revision         varchar(64)  NOT NULL,
    scope            varchar(8)   NOT NULL CHECK (scope IN ('rollout', 'wave', 'target')),
    part             varchar(63)  NOT NULL,
    namespace        varchar(253) NOT NULL,
    name             varchar(253) NOT NULL,
    image            text         NOT NULL,
    asked_by         text         NOT NULL,
    wave             varchar(63),
    target_id        uuid,
    target_namespace varchar(253),
    target_name      varchar(253),
    outcome          varchar(32)  NOT NULL,
    reason           text,
    message          text,
    targets          integer,
    released         integer,
    done             integer,
    failed           integer,
    approved_by      text,
    began_at         timestamptz,
    ended_at         timestamptz,
    sync_time        timestamptz  NOT NULL DEFAULT now(),
    deleted          boolean      NOT NULL DEFAULT false,
    sequence         bigint       NOT NULL CHECK (sequence >= 0),
    epoch            bigint       NOT NULL CHECK (epoch >= 0),
    head             bytea        NOT NULL CHECK (octet_length(head) = 32),
    observed_at      timestamptz  NOT NULL,
    PRIMARY KEY (cluster_id, id, revision, scope, part),
    CONSTRAINT deployment_status_targets_are_named CHECK ((scope = 'target') = (target_id IS NOT NULL))
) WITH (fillfactor = 70);
-- What was rolled out to a service, and what came of it.
CREATE INDEX deployment_status_by_target ON berth.deployment_status (cluster_id, target_id) WHERE scope = 'target';
CREATE INDEX deployment_status_by_namespace ON berth.deployment_status (cluster_id, namespace, name);
-- A Deployment's revisions, without their targets: asked for with every record.
CREATE INDEX deployment_status_rollouts ON berth.deployment_status (cluster_id, id) WHERE scope = 'rollout';
COMMENT ON TABLE berth.deployment_status IS 'How far rollouts, their waves and their targets are, and what came of them; id is the Deployment''s metadata.uid.';
COMMENT ON COLUMN berth.deployment_status.part IS 'A wave''s name, a target''s uid; empty for the rollout itself.';
COMMENT ON COLUMN berth.deployment_status.outcome IS 'Phase of a rollout or a wave. Of a target: Waiting, Refused, Skipped, Diverged, Updating, Updated, Failed, RollingBack, RolledBack, RollbackFailed, Vanished.';
COMMENT ON COLUMN berth.deployment_status.ended_at IS 'When it came to this outcome, if it is one to stay with; a target that recovers has another one later.';
COMMENT ON COLUMN berth.deployment_status.asked_by IS 'Who asked for it as it stands, as in the record: user:NAME, guess:NAME or unknown:.';
COMMENT ON COLUMN berth.deployment_status.deleted IS 'Of a rollout: its Deployment is gone.';
COMMENT ON COLUMN berth.deployment_status.sequence IS 'The chain''s end that this row belongs to; (sequence, epoch, observed_at) never goes back.';
