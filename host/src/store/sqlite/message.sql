WHERE m.id = ?1
