-- Whose login runs a version: its app, and the login, if apps have any. Never changes.
SELECT v.app, a.login FROM versions v LEFT JOIN apps a ON a.app = v.app WHERE v.`function` = ? AND v.version = ?
