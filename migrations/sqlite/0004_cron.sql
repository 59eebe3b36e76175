-- How far the schedules of the active versions have come. `key` stands for what a schedule says, so that it goes on in a version
-- that says the same.
CREATE TABLE semel_cron (
    function TEXT    NOT NULL,
    key      TEXT    NOT NULL,
    reached  INTEGER NOT NULL, -- what came up to here is fired, or will never be
    last     INTEGER,          -- the slot that was fired last
    PRIMARY KEY (function, key)
) WITHOUT ROWID;
