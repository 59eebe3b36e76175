INSERT INTO semel_subscriptions (topic, function) VALUES (?1, ?2) ON CONFLICT DO NOTHING
