-- Whether a schedule has come no further than it was read.
SELECT 1 FROM semel_cron WHERE function = ?1 AND key = ?2 AND reached = ?3
