-- Whether a deploy has the turn of an app: ? app, taker.
SELECT 1 FROM migrating WHERE app = ? AND taker = ?
