-- Messages of the bench, as if they had been accepted, by the function that accepts: $1 ids, $2 the function, $3 bodies.
SELECT semel.enqueue(
    array_agg(id), array_agg(id), array_agg($2::text), array_agg('fn/' || $2), array_agg(NULL::text), array_agg(NULL::text),
    array_agg('[]'::text), array_agg(body), array_agg(0::bigint), array_agg(0::bigint)
)
FROM unnest($1::text[], $3::bytea[]) AS t (id, body)
