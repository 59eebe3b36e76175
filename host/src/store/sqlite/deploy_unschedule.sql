-- Schedules that the active version has not are gone.
DELETE FROM semel_cron WHERE function = ?1 AND key NOT IN (SELECT value FROM json_each(?2))
