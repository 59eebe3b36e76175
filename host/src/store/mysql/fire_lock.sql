-- Whether a schedule has come no further than it was read, also after whoever is firing it now. It is locked then.
SELECT 1 FROM cron WHERE `function` = ? AND `key` = ? AND reached = ? FOR UPDATE
