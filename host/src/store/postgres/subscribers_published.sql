-- In an app's session: whom events of these topics ($2) fan out to. $1 token.
SELECT topic, function FROM semel_api.subscribers($1, $2)
