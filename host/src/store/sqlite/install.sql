-- The first opening: the installation's secret and epoch 0.
INSERT INTO semel_store (id, epoch, secret, created_at) VALUES (1, 0, ?1, ?2) ON CONFLICT (id) DO NOTHING
