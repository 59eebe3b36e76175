UPDATE store SET `schema` = ? WHERE id = 1
