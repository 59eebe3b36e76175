-- Recovery, 1 of 3: a record for each claim that was lost. $1 seqs under lock.
INSERT INTO semel.attempts (seq, fence, attempt, function, version, host, claimed_at, ended_at, outcome, error)
SELECT seq, fence, attempt, function, version, host, claimed_at, semel.now(), 'host-lost',
       'the claim ended without a record: its host was lost, or stood still longer than the lease'
FROM semel.queue WHERE seq = ANY ($1)
ON CONFLICT (seq, fence) DO NOTHING
