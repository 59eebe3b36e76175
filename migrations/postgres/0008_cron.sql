-- How far the schedules of the active versions have come. `key` stands for what a schedule says, so that it goes on in a version
-- that says the same.
--
-- LOCKS: a row of `cron` comes after `store` and before all others of 0001_engine.sql.
--
-- TRANSACTIONS: fire: fire_lock (no row: done); enqueue, for one event without a group or a key; fire. Not accepted: rolled back.
-- deploy and activate end with deploy_unschedule and deploy_schedule, remove has deploy_unschedule.
CREATE TABLE semel.cron (
    function text   NOT NULL,
    key      text   NOT NULL,
    reached  bigint NOT NULL, -- what came up to here is fired, or will never be
    last     bigint,          -- the slot that was fired last
    PRIMARY KEY (function, key)
) WITH (fillfactor = 50);
