-- In an app's session, as the others of `state`: $1 token, $2 key, $3 whether nobody else may change it until the end.
SELECT semel_api.state_get($1, $2, $3)
