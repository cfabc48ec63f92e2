-- Every image that a replica ran: as asked for, and the digest that it turned out to be.
CREATE TABLE berth.container_images (
    cluster_id   uuid         NOT NULL,
    image        varchar(600) NOT NULL,
    digest       varchar(600) NOT NULL,
    first_seen   timestamptz  NOT NULL,
    last_seen    timestamptz  NOT NULL,
    PRIMARY KEY (cluster_id, image, digest)
);
CREATE INDEX container_images_by_digest ON berth.container_images (digest) WHERE digest <> '';
COMMENT ON TABLE berth.container_images IS 'Images by reference and digest; digest is empty until the image is pulled.';
COMMENT ON COLUMN berth.container_images.last_seen IS 'Kept to the hour: it costs a write only when it moves by more.';
