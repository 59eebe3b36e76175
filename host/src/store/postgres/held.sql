-- Claims that are held at this moment, for experiments.
SELECT m.id, q.attempt, q.host FROM semel.queue q JOIN semel.messages m USING (seq) WHERE q.state = 'running'
