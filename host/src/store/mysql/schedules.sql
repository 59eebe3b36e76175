-- How far each schedule has come.
SELECT `function`, CONVERT(`key` USING utf8mb4) AS `key`, reached, last FROM cron
