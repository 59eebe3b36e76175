-- Recovery, 3 of 3: the rest is available at once, as a suspect. Fence and token stay: the zombie's acknowledgement is
-- refused because the state is no longer `running`, and after the next claim because of fence and token too. All at one time, so
-- that they stay in the order in which they were accepted.
WITH clock AS MATERIALIZED (SELECT semel.now() AS now)
UPDATE semel.queue
SET state = 'available', suspect = true, available_at = (SELECT now FROM clock), lease_until = NULL,
    error_kind = 'host-lost',
    error_message = 'the claim ended without a record: its host was lost, or stood still longer than the lease'
WHERE seq = ANY ($1) AND state = 'running'
