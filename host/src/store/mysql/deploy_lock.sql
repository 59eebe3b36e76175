-- Deploys, rollbacks and removals come one by one, whoever asks: a function that is new has no row of its own to lock.
SELECT 1 FROM store WHERE id = 1 FOR UPDATE
