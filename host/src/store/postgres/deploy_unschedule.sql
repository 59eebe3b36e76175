-- Schedules that the active version has not are gone.
DELETE FROM semel.cron WHERE function = $1 AND key <> ALL ($2)
