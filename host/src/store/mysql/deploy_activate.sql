INSERT INTO functions (name, app, active, serial, backlog) VALUES (?, ?, ?, ?, ?)
ON DUPLICATE KEY UPDATE
    app = VALUES(app), active = VALUES(active), serial = VALUES(serial), backlog = VALUES(backlog), removed = 0
