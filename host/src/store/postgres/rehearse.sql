-- In an app's session: binds the transaction to a rehearsal ($1 token of rehearsal_begin.sql).
SELECT xid, pid, migrations FROM semel_api.rehearse($1)
