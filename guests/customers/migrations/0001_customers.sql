CREATE TABLE customers (
  id         VARCHAR(36) PRIMARY KEY,
  email      VARCHAR(254) NOT NULL UNIQUE,
  name       VARCHAR(200) NOT NULL,
  created_at VARCHAR(40) NOT NULL
);
