INSERT INTO components (digest, bytes) VALUES (?, ?) ON DUPLICATE KEY UPDATE digest = components.digest
