-- A slot was fired.
UPDATE cron SET reached = ?, last = ? WHERE `function` = ? AND `key` = ?
