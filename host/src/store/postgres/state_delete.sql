-- Whether it was there. $1 token, $2 key.
SELECT semel_api.state_delete($1, $2)
