-- Ends the session of a commit whose answer was lost: $1 its process, $2 its transaction, of whose id the server shows 32 bits.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND backend_xid::text::bigint = $2::bigint & 4294967295
