-- Recovery, 1 of 4: a record for each claim that was lost (an older epoch, or a lease that ended).
INSERT INTO semel_attempts (seq, fence, attempt, function, version, host, claimed_at, ended_at, outcome, error)
SELECT seq, fence, attempt, function, version, host, claimed_at, ?2, 'host-lost',
       'the claim ended without a record: its host was lost, or stood still longer than the lease'
FROM semel_queue
WHERE state = 'running' AND (epoch <> ?1 OR lease_until <= ?2)
ON CONFLICT (seq, fence) DO NOTHING
