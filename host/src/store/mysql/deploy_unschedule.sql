-- Schedules that the active version has not (it has those of a list) are gone.
DELETE c FROM cron c FORCE INDEX (PRIMARY) LEFT JOIN JSON_TABLE(?, '$[*]' COLUMNS (k VARBINARY(512) PATH '$')) AS t ON t.k = c.`key`
WHERE c.`function` = ? AND t.k IS NULL
