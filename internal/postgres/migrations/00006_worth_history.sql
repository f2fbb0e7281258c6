-- +goose Up

-- What live codes were worth together.
CREATE TABLE worth_history (
    at       BIGINT PRIMARY KEY,
    billions BIGINT NOT NULL,
    units    BIGINT NOT NULL
);
