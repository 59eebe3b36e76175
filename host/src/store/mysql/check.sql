-- A write that leaves nothing behind: no function has an empty name.
INSERT INTO `keys` (`function`, `key`, fingerprint, message) VALUES ('', 'check', '', '')
ON DUPLICATE KEY UPDATE message = ''
