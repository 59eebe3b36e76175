UPDATE semel_functions SET rate_at = ?2 WHERE name = ?1
