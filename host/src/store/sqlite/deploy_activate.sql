INSERT INTO semel_functions (name, active) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET active = excluded.active
