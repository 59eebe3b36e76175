-- The places in the queue of those that came after the mark: due.
INSERT INTO queue (seq, `function`, state, urgency, available_at, due)
SELECT seq, `function`, 'available', 0, accepted_at, 1 FROM messages WHERE seq > ?
