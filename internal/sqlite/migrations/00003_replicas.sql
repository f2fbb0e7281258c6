-- +goose Up

-- pending: above 0, to be sent by whoever serves the machine through a broker of
-- its own, and how often that came up; below, it was done.
ALTER TABLE outbox ADD COLUMN pending INTEGER NOT NULL DEFAULT 1;
CREATE INDEX outbox_pending ON outbox (id) WHERE pending > 0;

-- Who sends to a machine through a broker of its own, and until when.
CREATE TABLE leases (
    machine_id INTEGER PRIMARY KEY,
    holder     TEXT    NOT NULL,
    until      INTEGER NOT NULL
) STRICT;
