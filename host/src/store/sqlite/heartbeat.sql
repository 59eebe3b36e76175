-- Renews the lease of a claim that still holds.
UPDATE semel_queue SET lease_until = ?4 WHERE seq = ?1 AND fence = ?2 AND token_hash = ?3 AND state = 'running'
