-- The number of the last migration and the installation's secret.
SELECT `schema`, secret FROM store WHERE id = 1
