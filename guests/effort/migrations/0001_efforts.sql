-- Efforts that were made: a row per run that ended well.
CREATE TABLE efforts (
    message_id VARCHAR(64) NOT NULL,
    attempt BIGINT NOT NULL
);
