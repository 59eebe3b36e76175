INSERT INTO semel_components (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING
