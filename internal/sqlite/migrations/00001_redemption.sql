-- +goose Up

-- Single values: the epoch and salt of the data keys, a rotation's place.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- The wrapped data keys; generation 0 is the ledger's.
CREATE TABLE data_keys (
    generation INTEGER PRIMARY KEY,
    wrapped    BLOB NOT NULL
) STRICT;

-- Users are never removed, so that their ids have no gaps and a page of them
-- is found by arithmetic.
CREATE TABLE users (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    username      TEXT    NOT NULL UNIQUE,
    display_name  TEXT    NOT NULL,
    role          INTEGER NOT NULL,
    status        INTEGER NOT NULL,
    quota         INTEGER NOT NULL CHECK (quota >= 0),
    password_hash TEXT    NOT NULL,
    token_hash    BLOB UNIQUE,
    created       INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    hash    BLOB PRIMARY KEY,
    user_id INTEGER NOT NULL,
    ends    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_ends ON sessions (ends);
CREATE INDEX sessions_user ON sessions (user_id, ends);

-- Answers to requests with an idempotency key.
CREATE TABLE answers (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    scope   BLOB    NOT NULL UNIQUE,
    caller  INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    request BLOB    NOT NULL,
    answer  BLOB    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX answers_at ON answers (at);
CREATE INDEX answers_refused ON answers (caller) WHERE refused = 1;

-- Names of their own: a million codes share one.
CREATE TABLE redemption_names (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- state: 1 enabled, 2 disabled, 3 used, 4 enabled and swept as past its time.
-- It says which count a code is in; whether it has expired, the clock says.
CREATE TABLE redemptions (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    name_id   INTEGER NOT NULL,
    user_id   INTEGER NOT NULL,
    state     INTEGER NOT NULL,
    quota     INTEGER NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    redeemed  INTEGER NOT NULL,
    used_by   INTEGER NOT NULL,
    key_index BLOB    NOT NULL,
    sealed    BLOB    NOT NULL
) STRICT;
CREATE UNIQUE INDEX redemptions_key ON redemptions (key_index);
-- What is not enabled may be rare, and is then listed without a walk past all
-- that is. Enabled codes are left out: each redeem would pay for them twice.
CREATE INDEX redemptions_state ON redemptions (state) WHERE state <> 1;
-- Two, since SQLite uses a partial index only for its own condition, word by word.
CREATE INDEX redemptions_due ON redemptions (expires, name_id) WHERE state = 1 AND expires > 0;
CREATE INDEX redemptions_swept ON redemptions (expires, name_id) WHERE state = 4;

-- How many codes of a name (0: of all) and state have id >> level = block.
CREATE TABLE redemption_counts (
    name_id  INTEGER NOT NULL,
    level    INTEGER NOT NULL,
    block    INTEGER NOT NULL,
    enabled  INTEGER NOT NULL,
    disabled INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    expired  INTEGER NOT NULL,
    PRIMARY KEY (name_id, level, block)
) STRICT, WITHOUT ROWID;

-- How many enabled codes of a name have id >> 12 = block and expire then: what
-- is past its time and not swept yet is counted here, however much it is.
CREATE TABLE redemption_due (
    expires INTEGER NOT NULL,
    name_id INTEGER NOT NULL,
    block   INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    PRIMARY KEY (expires, name_id, block)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    actor_id   INTEGER NOT NULL,
    address    TEXT    NOT NULL,
    account_id INTEGER NOT NULL,
    first_id   INTEGER NOT NULL,
    last_id    INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    amount     INTEGER NOT NULL,
    detail     TEXT    NOT NULL,
    mac        BLOB    NOT NULL
) STRICT;
CREATE INDEX ledger_at ON ledger (at);
CREATE INDEX ledger_actor ON ledger (actor_id);
CREATE INDEX ledger_account ON ledger (account_id) WHERE account_id > 0 AND account_id <> actor_id;
CREATE INDEX ledger_code ON ledger (first_id) WHERE first_id > 0 AND first_id = last_id;
CREATE INDEX ledger_range ON ledger (first_id, last_id) WHERE first_id < last_id;

CREATE TABLE ledger_heads (
    lane  INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    mac   BLOB    NOT NULL,
    seal  BLOB    NOT NULL
) STRICT;
