-- ? seq, ? token, ? prefix, ? after (or NULL), ? most entries, ? most bytes: measured in the procedure, so no state_measure.sql.
CALL ENGINE.state_scan(?, ?, ?, ?, ?, ?)
