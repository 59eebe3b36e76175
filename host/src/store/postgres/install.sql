-- In the transaction of the first migrations: $1 the number of the last one, $2 the installation's secret. No epoch.
INSERT INTO semel.store (id, schema, secret, created_at) VALUES (1, $1, $2, semel.now()) ON CONFLICT (id) DO NOTHING
