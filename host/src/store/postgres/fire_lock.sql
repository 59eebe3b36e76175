-- Whether a schedule has come no further than it was read, also after whoever is firing it now. It is locked then.
SELECT 1 FROM semel.cron WHERE function = $1 AND key = $2 AND reached = $3 FOR UPDATE
