SELECT rate_at FROM semel_functions WHERE name = ?1
