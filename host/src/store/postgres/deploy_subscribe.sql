INSERT INTO semel.subscriptions (topic, function) VALUES ($1, $2) ON CONFLICT DO NOTHING
