CALL ENGINE.state_delete(?, ?, ?)
