UPDATE functions SET rate_at = ? WHERE name = ?
