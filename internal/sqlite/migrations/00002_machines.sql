-- +goose Up

CREATE TABLE merchants (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL,
    app_key     BLOB    NOT NULL, -- sealed
    payload     TEXT    NOT NULL,
    signature   TEXT    NOT NULL,
    expiry_unit TEXT    NOT NULL,
    created     INTEGER NOT NULL
) STRICT;

-- Deleted machines stay: their codes and the ledger tell of them.
CREATE TABLE machines (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    merchant_id    INTEGER NOT NULL,
    machine_no     TEXT    NOT NULL,
    name           TEXT    NOT NULL,
    timezone       TEXT    NOT NULL,
    purchase_limit INTEGER NOT NULL,
    pickup_codes   INTEGER NOT NULL,
    password_hash  BLOB    NOT NULL,
    presence       INTEGER NOT NULL,
    last_seen      INTEGER NOT NULL,
    created        INTEGER NOT NULL,
    deleted        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX machines_no ON machines (machine_no) WHERE deleted = 0;
CREATE INDEX machines_there ON machines (id) WHERE deleted = 0;

-- Deleted products stay, so that an id that was made up is not made up again.
CREATE TABLE products (
    machine_id INTEGER NOT NULL,
    id         INTEGER NOT NULL,
    name       TEXT    NOT NULL,
    slot       TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    deleted    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (machine_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX products_there ON products (machine_id, id) WHERE deleted = 0;

-- state: 1 live, 2 used, 3 withdrawn, 4 live and swept as past its time; whether
-- it has expired, the clock says.
-- unheard: what became of the last message about the code, if it was given up: 1
-- it was queued, 2 it was sent, -1 its machine was deleted; 0 if it was not.
CREATE TABLE pickup_codes (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id INTEGER NOT NULL,
    product_id INTEGER NOT NULL,
    quantity   INTEGER NOT NULL,
    state      INTEGER NOT NULL DEFAULT 1,
    late       INTEGER NOT NULL DEFAULT 0,
    unheard    INTEGER NOT NULL DEFAULT 0,
    user_id    INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    used       INTEGER NOT NULL DEFAULT 0,
    withdrawn  INTEGER NOT NULL DEFAULT 0,
    code_index BLOB    NOT NULL,
    sealed     BLOB    NOT NULL
) STRICT;
-- Not unique: digits come back a day after their code has expired.
CREATE INDEX pickup_codes_index ON pickup_codes (code_index);
CREATE INDEX pickup_codes_machine ON pickup_codes (machine_id, id);
CREATE INDEX pickup_codes_late ON pickup_codes (machine_id, id) WHERE late = 1;
CREATE INDEX pickup_codes_live ON pickup_codes (machine_id, product_id, expires) WHERE state = 1;
-- By expiry, what a sweep looks for: for the latter two only if the clock was set back.
CREATE INDEX pickup_codes_due ON pickup_codes (expires) WHERE state = 1;
CREATE INDEX pickup_codes_swept ON pickup_codes (expires) WHERE state = 4;
CREATE INDEX pickup_codes_unheard ON pickup_codes (expires) WHERE unheard > 0;

-- What machines are to be told, in this order. kind is delivery.Kind; sent: the
-- broker has it. A row goes once the machine has it, or its code has expired.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    machine_id INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    code_id    INTEGER NOT NULL,
    sent       INTEGER NOT NULL DEFAULT 0,
    at         INTEGER NOT NULL,
    expires    INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_machine ON outbox (machine_id, id);
-- A code has one row at most: what was to be told before is of no use any more.
CREATE UNIQUE INDEX outbox_code ON outbox (code_id) WHERE code_id > 0;
CREATE INDEX outbox_expires ON outbox (expires);

-- The codes of an entry about a machine are pickup codes: ledger_code finds both.
ALTER TABLE ledger ADD COLUMN machine_id INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ledger_machine ON ledger (machine_id) WHERE machine_id > 0;
