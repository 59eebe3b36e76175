-- In an app's session, the last statement of the engine before COMMIT: history, attempts, groups and queue in one step, if,
-- and only if, these very claims still hold and this very transaction entered them. One element per claim. What SQLite does
-- with complete.sql, attempt.sql and group_….sql before it is inside of the function: the login has no rights on the tables.
SELECT semel_api.ack($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
