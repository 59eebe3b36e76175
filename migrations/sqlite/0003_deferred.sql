-- Who sends what functions deferred: the host itself, as a function that nobody deployed (relay.rs). Its version never
-- changes; what it does is a part of the program.
INSERT INTO semel_components (digest, bytes) VALUES ('built-in', x'');
INSERT INTO semel_versions (function, version, digest, manifest, contract, label, created_at)
VALUES ('deferred-http', 1, 'built-in', '', 'finish-once', 'external', 0);
INSERT INTO semel_functions (name, app, active) VALUES ('deferred-http', 'semel', 1);
INSERT INTO semel_subscriptions (topic, function) VALUES ('deferred-http', 'deferred-http');
