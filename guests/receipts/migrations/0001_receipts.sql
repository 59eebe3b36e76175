CREATE TABLE receipts (
  message_id VARCHAR(64) PRIMARY KEY,
  body       TEXT NOT NULL
);
