CALL ENGINE.state_get(?, ?, ?, 0)
