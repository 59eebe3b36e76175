-- The hot half: due at `available_at`, or at once.
INSERT INTO semel_queue (seq, function, state, priority, available_at, due) VALUES ($1, $2, 'available', $3, $4, $5)
