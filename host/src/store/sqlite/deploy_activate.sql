INSERT INTO semel_functions (name, app, active, serial, backlog) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (name) DO UPDATE
SET app = excluded.app, active = excluded.active, serial = excluded.serial, backlog = excluded.backlog, removed = 0
