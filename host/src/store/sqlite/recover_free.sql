-- Recovery, 4 of 4: the rest is available at once, as a suspect. Fence and token stay: the zombie's acknowledgement is
-- refused because the state is no longer `running`, and after the next claim because of fence and token too.
UPDATE semel_queue
SET state = 'available', suspect = 1, available_at = ?2, lease_until = NULL,
    error_kind = 'host-lost', error_message = 'the claim ended without a record: its host was lost, or stood still longer than the lease'
WHERE state = 'running' AND (epoch <> ?1 OR lease_until <= ?2)
