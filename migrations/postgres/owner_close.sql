-- The owner of an app has no login again.
ALTER ROLE {owner} NOLOGIN PASSWORD NULL
