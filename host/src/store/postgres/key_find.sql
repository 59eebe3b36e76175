-- What keys ($1 functions, $2 keys) stand for, and whether they still do; a statement of its own after key_remember.sql found
-- them taken. Not active: key_retake.sql.
SELECT k.function, k.key, k.fingerprint, k.message, k.ended_as,
       (k.expires_at IS NULL OR k.expires_at > semel.now())
       AND (NOT k.while_active OR EXISTS (
           SELECT FROM semel.messages m
           LEFT JOIN semel.queue q ON q.seq = m.seq
           LEFT JOIN semel.history h ON h.seq = m.seq
           WHERE m.id = k.message AND (q.seq IS NOT NULL OR h.state = 'in-doubt')
       )) AS active
FROM unnest($1::text[], $2::text[]) AS t (function, key)
JOIN semel.keys k ON k.function = t.function AND k.key = t.key
