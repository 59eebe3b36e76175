-- $1 token, $2 prefix, $3 after (or NULL), $4 most entries, $5 most bytes: measured in the function, so no state_measure.sql.
SELECT key, value FROM semel_api.state_scan($1, $2, $3, $4, $5)
