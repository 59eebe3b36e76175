-- In an app's session, the last statement before COMMIT: history, attempts, groups and queue in one step, if, and only if, these
-- very claims still hold. ? a list of claims, ? their token, ? all bodies in one, ? a list of groups or NULL.
CALL ENGINE.ack(?, ?, ?, ?)
