-- Recovery, 3 of 3 (after end.sql): the rest is available at once, as a suspect. Fence and token stay: the zombie's
-- acknowledgement is refused because the state is no longer `running`, and after the next claim because of fence and token too.
-- All at one time, so that they stay in the order in which they were accepted.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (seq BIGINT PATH '$')) AS t STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = t.seq
SET q.state = 'available', q.suspect = 1, q.available_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)), q.lease_until = NULL, q.error_kind = 'host-lost',
    q.error_message = 'the claim ended without a record: its host was lost, or stood still longer than the lease'
