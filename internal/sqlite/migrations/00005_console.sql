-- +goose Up

-- How many codes in each state have been added up, and what they are worth
-- together: a billion times billions, and units, since the sum of a few quotas may
-- not fit one number. They are of no use while codes are not as many as are
-- counted, or anything is under state 0: what was changed without a word on worth.
CREATE TABLE redemption_worth (
    state    INTEGER PRIMARY KEY,
    codes    INTEGER NOT NULL,
    billions INTEGER NOT NULL,
    units    INTEGER NOT NULL
) STRICT;

-- What the ledger's entries of a kind in a quarter of an hour add up to. quarter:
-- of the epoch.
CREATE TABLE activity (
    quarter  INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    entries  INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    billions INTEGER NOT NULL,
    units    INTEGER NOT NULL,
    PRIMARY KEY (quarter, kind)
) STRICT, WITHOUT ROWID;

-- Up to which entry activity adds up: seq is an id, and lane 0 all of them.
CREATE TABLE activity_heads (
    lane INTEGER PRIMARY KEY,
    seq  INTEGER NOT NULL
) STRICT;

-- How many machines there were, and were online.
CREATE TABLE presence_history (
    at       INTEGER PRIMARY KEY,
    machines INTEGER NOT NULL,
    online   INTEGER NOT NULL
) STRICT;

-- Links that let who has one set the password of a user, once: one for each.
CREATE TABLE links (
    user_id INTEGER PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE,
    ends    INTEGER NOT NULL
) STRICT;
CREATE INDEX links_ends ON links (ends);

-- Users are found by how their name begins, and those few by what they are.
CREATE INDEX users_role ON users (role, id) WHERE role <> 1;
CREATE INDEX users_status ON users (status, id) WHERE status <> 1;

-- Work on many redemption codes that goes on by itself: kind 'issue' or 'purge'.
-- done of total: codes made or removed. place: behind which id a purge goes on.
-- ids: of the codes made, as 1-100,201-300. holder does it, unless updated is long
-- ago; without one, whoever comes first.
CREATE TABLE jobs (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    kind     TEXT    NOT NULL,
    user_id  INTEGER NOT NULL,
    address  TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    quota    INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    total    INTEGER NOT NULL,
    done     INTEGER NOT NULL,
    place    INTEGER NOT NULL,
    ids      TEXT    NOT NULL,
    state    INTEGER NOT NULL, -- 1 under way, 2 done, 3 stopped, 4 failed
    started  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    holder   TEXT    NOT NULL
) STRICT;
CREATE INDEX jobs_running ON jobs (id) WHERE state = 1;
CREATE UNIQUE INDEX jobs_purge ON jobs (kind) WHERE state = 1 AND kind = 'purge';

-- Late uses that nobody has looked at.
ALTER TABLE pickup_codes ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;
CREATE INDEX pickup_codes_look ON pickup_codes (id) WHERE late = 1 AND acknowledged = 0;

-- What an account or a machine did is found by its time.
DROP INDEX ledger_actor;
DROP INDEX ledger_account;
DROP INDEX ledger_machine;
CREATE INDEX ledger_actor ON ledger (actor_id, at);
CREATE INDEX ledger_account ON ledger (account_id, at) WHERE account_id > 0 AND account_id <> actor_id;
CREATE INDEX ledger_machine ON ledger (machine_id, at) WHERE machine_id > 0;
