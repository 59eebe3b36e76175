-- In an app's session: whom events fan out to. ? seq, ? token, ? a list of topics.
CALL ENGINE.subscribers(?, ?, ?)
