-- A write that leaves nothing behind: no function has an empty name. Changing a value to itself would write nothing.
INSERT INTO semel_keys (function, key, fingerprint, message) VALUES ('', 'check', x'', '');
DELETE FROM semel_keys WHERE function = '' AND key = 'check'
