-- +goose NO TRANSACTION
-- +goose Up

-- Indexes are built while others write. Of a build that was cut off an index is left
-- that is not valid: it has to go first. (What is no PostgreSQL builds all indexes
-- so, and takes the word for it; not all would take it of DROP INDEX.)
SET lock_timeout = '3s';
DROP INDEX IF EXISTS users_name;
DROP INDEX IF EXISTS users_role;
DROP INDEX IF EXISTS users_status;
DROP INDEX IF EXISTS pickup_codes_look;
DROP INDEX IF EXISTS guesses_failed;
DROP INDEX IF EXISTS ledger_actor_at;
DROP INDEX IF EXISTS ledger_account_at;
DROP INDEX IF EXISTS ledger_machine_at;

-- A build waits until transactions have ended that began before it, a backup for
-- one, and nobody waits for it.
SET lock_timeout = '10min';

-- Users are found by how their name begins, and those few by what they are.
CREATE INDEX CONCURRENTLY users_name ON users (username COLLATE "C");
CREATE INDEX CONCURRENTLY users_role ON users (role, id) WHERE role <> 1;
CREATE INDEX CONCURRENTLY users_status ON users (status, id) WHERE status <> 1;

-- Late uses that nobody has looked at.
CREATE INDEX CONCURRENTLY pickup_codes_look ON pickup_codes (id) WHERE late = 1 AND acknowledged = 0;

-- Whose guesses failed most.
CREATE INDEX CONCURRENTLY guesses_failed ON guesses (limiter, failed) WHERE label <> '';

-- What an account or a machine did is found by its time.
CREATE INDEX CONCURRENTLY ledger_actor_at ON ledger (actor_id, at, id);
CREATE INDEX CONCURRENTLY ledger_account_at ON ledger (account_id, at, id) WHERE account_id > 0 AND account_id <> actor_id;
CREATE INDEX CONCURRENTLY ledger_machine_at ON ledger (machine_id, at, id) WHERE machine_id > 0;

RESET lock_timeout;
