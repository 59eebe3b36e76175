-- Work that was done: a row per run that ended well.
CREATE TABLE work (
    message_id VARCHAR(64) NOT NULL,
    attempt BIGINT NOT NULL
);
