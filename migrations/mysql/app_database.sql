-- The database of one app; harmless to repeat. Filled in: {database} as a quoted identifier.
CREATE DATABASE IF NOT EXISTS {database} CHARACTER SET utf8mb4
