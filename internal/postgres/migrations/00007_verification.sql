-- +goose Up

-- How far the verification of the ledger that was asked for last has come: one row,
-- of id 1. turn moves with each change. value: sealed under the ledger's key, so
-- that who can write here cannot say that the ledger is whole.
CREATE TABLE verification (
    id    BIGINT PRIMARY KEY,
    turn  BIGINT NOT NULL,
    value BYTEA  NOT NULL
);
