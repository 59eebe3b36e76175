-- In an app's session: whether a rehearsal was announced (? token of rehearsal_begin.sql).
CALL ENGINE.rehearse(?)
