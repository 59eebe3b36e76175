WHERE m.id = ?
