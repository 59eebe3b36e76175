-- Out of the queue, whoever works on it: its acknowledgement will find nothing. It waits for one that is under way: no row
-- then, since that one was faster.
SELECT state FROM queue WHERE seq = ? FOR UPDATE
