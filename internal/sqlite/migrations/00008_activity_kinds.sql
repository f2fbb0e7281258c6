-- +goose Up

-- Charts are of a few kinds each, whatever others there are in those quarters.
CREATE INDEX activity_kinds ON activity (kind, quarter, entries, count, billions, units);
