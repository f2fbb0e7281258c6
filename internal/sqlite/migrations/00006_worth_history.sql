-- +goose Up

-- What live codes were worth together.
CREATE TABLE worth_history (
    at       INTEGER PRIMARY KEY,
    billions INTEGER NOT NULL,
    units    INTEGER NOT NULL
) STRICT;
