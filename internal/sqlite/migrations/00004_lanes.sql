-- +goose Up

-- Entries of all lanes, in the order of id: what was copied from elsewhere may
-- have several. New ones go to lane 1. Where there is no other, id is the place
-- in it; else ahead says by how much id is before that.
ALTER TABLE ledger RENAME COLUMN seq TO id;
ALTER TABLE ledger ADD COLUMN lane INTEGER NOT NULL DEFAULT 1;
ALTER TABLE ledger ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN seq INTEGER GENERATED ALWAYS AS (id - ahead) VIRTUAL;
