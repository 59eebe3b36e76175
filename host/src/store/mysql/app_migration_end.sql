DELETE FROM migrating WHERE app = ? AND taker = ?
