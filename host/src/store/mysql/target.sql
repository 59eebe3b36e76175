-- Whom messages for functions (a list) are for: those that are deployed, and the limit of their backlogs (NULL: none).
SELECT f.name, f.backlog
FROM JSON_TABLE(?, '$[*]' COLUMNS (name VARCHAR(190) PATH '$')) AS t STRAIGHT_JOIN functions f FORCE INDEX (PRIMARY) ON f.name = t.name
WHERE f.removed = 0
