-- A slot was fired.
UPDATE semel.cron SET reached = $3, last = $3 WHERE function = $1 AND key = $2
