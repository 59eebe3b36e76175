-- Claims that are held at this moment, for experiments.
SELECT m.id, q.attempt, q.host FROM semel_queue q JOIN semel_messages m USING (seq) WHERE q.state = 'running'
