-- In an app's session: binds the transaction to a claim ($1 seq, $2 fence, $3 token).
SELECT xid, pid FROM semel_api.enter($1, $2, $3)
