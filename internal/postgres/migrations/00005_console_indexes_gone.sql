-- +goose Up

-- Those by time, of 00004, stand in for them.
SET LOCAL lock_timeout = '3s';
DROP INDEX IF EXISTS ledger_actor;
DROP INDEX IF EXISTS ledger_account;
DROP INDEX IF EXISTS ledger_machine;
