-- How far each schedule has come.
SELECT function, key, reached, last FROM semel.cron
