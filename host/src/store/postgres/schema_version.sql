-- The number of the last migration and the installation's secret; locked, so that hosts of one installation migrate it one by one.
SELECT schema, secret FROM semel.store WHERE id = 1 FOR UPDATE
