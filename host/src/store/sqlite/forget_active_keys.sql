DELETE FROM semel_keys WHERE while_active = 1 AND message IN (
    SELECT id FROM semel_messages WHERE seq IN (SELECT value FROM json_each(?1))
)
