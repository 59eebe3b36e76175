-- The app of the fuzzer: what an app's tables can have, and columns that are named like the engine's.
CREATE TABLE own (
    id    INTEGER PRIMARY KEY,
    value TEXT UNIQUE,
    n     INTEGER DEFAULT 0 CHECK (n IS NULL OR typeof(n) <> 'integer' OR n < 1000000),
    twice INTEGER AS (n * 2)
);
CREATE INDEX own_upper ON own (upper(value)) WHERE n > 0;
CREATE TABLE log (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    own_id INTEGER REFERENCES own ON DELETE CASCADE ON UPDATE CASCADE,
    note   TEXT
);
CREATE INDEX log_note ON log (note, own_id);
CREATE TABLE pairs (k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE docs (id TEXT, key TEXT, secret TEXT, body TEXT);
INSERT INTO own (id, value, n) VALUES (1, 'one', 1), (2, 'two', 2), (3, 'x3', 3), (4, NULL, 0), (5, 'One', 9);
INSERT INTO log (own_id, note) VALUES (1, 'a'), (1, 'b'), (2, 'a'), (NULL, 'x1');
INSERT INTO pairs VALUES ('a', 1), ('b', 'x'), ('c', x'00ff'), ('d', NULL);
INSERT INTO docs VALUES ('1', 'k', 's', '{"a":[1,2]}'), ('2', 'k', NULL, 'x'), (NULL, 'one', 'x3', '');
