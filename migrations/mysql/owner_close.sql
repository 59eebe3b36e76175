-- The owner of an app has no login again; who is in stays in.
ALTER USER {owner}@'%' ACCOUNT LOCK
