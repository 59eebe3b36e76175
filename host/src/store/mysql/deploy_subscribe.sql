INSERT INTO subscriptions (topic, `function`) VALUES (?, ?) ON DUPLICATE KEY UPDATE topic = subscriptions.topic
