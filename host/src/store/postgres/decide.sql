INSERT INTO semel.decisions (seq, at, decision, detail) VALUES ($1, semel.now(), $2, $3)
