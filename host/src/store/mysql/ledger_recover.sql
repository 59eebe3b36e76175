-- These calls (a list) are unknown, and why. A host that lives may still say how its call ended.
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT PATH '$')) AS t STRAIGHT_JOIN calls c FORCE INDEX (PRIMARY) ON c.id = t.id
SET c.state = 'unknown', c.detail = ?, c.ended_at = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))
