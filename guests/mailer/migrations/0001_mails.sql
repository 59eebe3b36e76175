CREATE TABLE mails (
    message_id varchar(64) PRIMARY KEY,
    recipient  text        NOT NULL
);
