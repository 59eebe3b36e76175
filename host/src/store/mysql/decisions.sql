-- What people decided about one message, oldest first.
SELECT d.at, d.decision, d.detail FROM messages m JOIN decisions d ON d.seq = m.seq WHERE m.id = ? ORDER BY d.id
