CREATE TABLE counters (
  id VARCHAR(100) PRIMARY KEY,
  n  BIGINT NOT NULL,
  counted_by VARCHAR(100) -- The message that was counted last.
);
