-- In an app's session: binds the transaction to claims ($1 their seqs, $2 fences, $3 the token of all).
SELECT xid, pid, migrations FROM semel_api.enter($1, $2, $3)
