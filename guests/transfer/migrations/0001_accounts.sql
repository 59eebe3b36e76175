CREATE TABLE accounts (
  id      VARCHAR(100) PRIMARY KEY,
  balance BIGINT NOT NULL CHECK (balance >= 0)
);

-- One row per message that moved money.
CREATE TABLE transfers (
  id           VARCHAR(64) PRIMARY KEY,
  from_account VARCHAR(100) NOT NULL,
  to_account   VARCHAR(100) NOT NULL,
  amount       BIGINT NOT NULL
);
