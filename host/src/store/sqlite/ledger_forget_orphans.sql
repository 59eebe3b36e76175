-- Calls whose messages are gone, with the database attached as `queue`. Once per opening, since it walks over the ledger.
DELETE FROM semel_calls WHERE NOT EXISTS (SELECT 1 FROM queue.semel_messages m WHERE m.id = semel_calls.message)
