-- +goose NO TRANSACTION
-- +goose Up

-- As in 00004. Charts are of a few kinds each, whatever others there are in those
-- quarters.
SET lock_timeout = '3s';
DROP INDEX IF EXISTS activity_kinds;
SET lock_timeout = '10min';
CREATE INDEX CONCURRENTLY activity_kinds ON activity (kind, quarter) INCLUDE (entries, count, billions, units);
RESET lock_timeout;
