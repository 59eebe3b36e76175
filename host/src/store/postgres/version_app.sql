-- Whose login runs a version: its app, and the login, if apps have any. Never changes.
SELECT v.app, a.login FROM semel.versions v LEFT JOIN semel.apps a ON a.app = v.app WHERE v.function = $1 AND v.version = $2
