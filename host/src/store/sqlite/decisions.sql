-- What people decided about one message, oldest first.
SELECT d.at, d.decision, d.detail FROM semel_messages m JOIN semel_decisions d ON d.seq = m.seq WHERE m.id = ?1 ORDER BY d.rowid
