CREATE TABLE effects (
  message_id VARCHAR(64) NOT NULL,
  step       VARCHAR(16) NOT NULL
);
