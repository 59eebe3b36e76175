INSERT INTO semel_decisions (seq, at, decision, detail) VALUES (?1, ?2, ?3, ?4)
