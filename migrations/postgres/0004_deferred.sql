-- Who sends what functions deferred: the host itself, as a function that nobody deployed (relay.rs). Its version never
-- changes; what it does is a part of the program. No app has this name, so it works as the engine's own login.
INSERT INTO semel.components (digest, bytes) VALUES ('built-in', '');
INSERT INTO semel.versions (function, version, app, digest, manifest, contract, label, created_at)
VALUES ('deferred-http', 1, 'semel', 'built-in', '', 'finish-once', 'external', 0);
INSERT INTO semel.functions (name, app, active) VALUES ('deferred-http', 'semel', 1);
INSERT INTO semel.subscriptions (topic, function) VALUES ('deferred-http', 'deferred-http');
