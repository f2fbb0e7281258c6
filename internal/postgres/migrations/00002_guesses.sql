-- +goose Up

-- When a count is of no use any more, whatever the window of who counts; 0: it was
-- written before there was this.
ALTER TABLE guesses ADD COLUMN ends BIGINT NOT NULL DEFAULT 0;
CREATE INDEX guesses_ends ON guesses (ends);
