-- Claims that are held at this moment, for experiments.
SELECT m.id, q.attempt, q.host FROM queue q JOIN messages m ON m.seq = q.seq WHERE q.state = 'running'
