CREATE TABLE misbehaviour (
  message_id VARCHAR(64) NOT NULL,
  attempt    BIGINT NOT NULL,
  what       VARCHAR(100) NOT NULL,
  PRIMARY KEY (message_id, attempt, what)
);
