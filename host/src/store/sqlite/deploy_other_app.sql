-- The app that holds this file, if it is another one: all functions of a file see the same tables.
SELECT app FROM semel_functions WHERE name <> ?1 AND app NOT IN (?2, 'semel') AND removed = 0 LIMIT 1
