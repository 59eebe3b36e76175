-- Whom a message for one function is for: its backlog limit, if it is deployed.
SELECT backlog FROM semel_functions WHERE name = ?1 AND removed = 0
