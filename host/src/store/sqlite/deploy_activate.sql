INSERT INTO semel_functions (name, app, active) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET app = excluded.app, active = excluded.active
