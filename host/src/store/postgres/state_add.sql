-- The sum, or NULL if there is no counter. One statement, where SQLite reads and writes: two hosts add at once.
SELECT semel_api.state_add($1, $2, $3)
