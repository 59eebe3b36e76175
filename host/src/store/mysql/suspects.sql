-- Whether any suspect of these functions (a list) is waiting for its turn.
SELECT EXISTS (
    SELECT 1 FROM JSON_TABLE(?, '$[*]' COLUMNS (name VARCHAR(190) PATH '$')) AS t
    STRAIGHT_JOIN queue q FORCE INDEX (queue_claim) ON q.`function` = t.name AND q.state = 'available' AND q.suspect = 1
    WHERE q.blocked = 0
)
