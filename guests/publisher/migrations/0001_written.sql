-- What `publisher` writes where write, publication and acknowledgement are one commit.
CREATE TABLE written (
    id VARCHAR(100) NOT NULL PRIMARY KEY
);
