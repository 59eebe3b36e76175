-- Messages of function $1 that have passed, $2 of them: accepted, completed, with their attempts. Their ids are no order.
WITH message AS (
    INSERT INTO semel.messages (id, event, function, topic, headers, body, priority, accepted_at, due_at)
    SELECT replace(gen_random_uuid()::text, '-', ''), replace(gen_random_uuid()::text, '-', ''), $1, 'fn/' || $1, '[]',
           convert_to('counter-' || n % 1000, 'UTF8'), 0, clock.now, clock.now
    FROM generate_series(1, $2) AS n, (SELECT semel.now() AS now) AS clock
    RETURNING seq, accepted_at
), ended AS (
    INSERT INTO semel.history
        (seq, function, state, attempt, fence, version, available_at, ended_at, answered, answer_content_type,
         answer_headers, answer_body)
    SELECT seq, $1, 'completed', 1, 1, 1, accepted_at, accepted_at, true, 'application/json', '[]',
           convert_to('{"counter":"counter-1","count":1}', 'UTF8')
    FROM message
)
INSERT INTO semel.attempts
    (seq, fence, attempt, function, version, host, claimed_at, started_at, ended_at, outcome, fuel, statements, sql_micros)
SELECT seq, 1, 1, $1, 1, '0123456789abcdef', accepted_at, accepted_at, accepted_at, 'completed', 9000, 2, 100
FROM message
