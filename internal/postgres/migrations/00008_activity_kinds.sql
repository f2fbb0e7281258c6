-- +goose Up

-- Charts are of a few kinds each, whatever others there are in those quarters.
-- Only who adds up waits for this.
CREATE INDEX activity_kinds ON activity (kind, quarter) INCLUDE (entries, count, billions, units);
