-- Whether the engine's tables are there at all. The row of `store` is made last.
SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'store'
