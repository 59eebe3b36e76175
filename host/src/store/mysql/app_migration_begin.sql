-- Takes the turn of an app, in a commit of its own: ? app, taker. Nothing if another deploy has it, and has taken it, or done a
-- step, in the last two minutes: after that it has it no more.
INSERT INTO migrating (app, taker, since) VALUES (?, ?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))
ON DUPLICATE KEY UPDATE
    taker = IF(since < VALUES(since) - 120000000, VALUES(taker), taker),
    since = IF(taker = VALUES(taker), VALUES(since), since)
