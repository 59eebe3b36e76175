-- Whether the engine's schema is there at all.
SELECT to_regclass('semel.store') IS NOT NULL
