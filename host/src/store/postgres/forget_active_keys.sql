DELETE FROM semel.keys WHERE while_active AND message = ANY (ARRAY(SELECT id FROM semel.messages WHERE seq = ANY ($1)))
