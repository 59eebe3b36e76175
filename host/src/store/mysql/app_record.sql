-- Whose an app's users are: ? app, login, owner (NULL: somebody whom no host knows).
INSERT INTO apps (app, login, owner) VALUES (?, ?, ?)
ON DUPLICATE KEY UPDATE login = VALUES(login), owner = VALUES(owner)
