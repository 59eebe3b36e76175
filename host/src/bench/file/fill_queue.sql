-- Its place in the queue: due.
INSERT INTO semel_queue (seq, function, state, priority, available_at, due) VALUES (?1, ?2, 'available', 0, ?3, 1)
