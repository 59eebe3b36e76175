-- $1 token, $2 key, $3 value.
SELECT semel_api.state_set($1, $2, $3)
