-- Events that were handled: one that comes again is found here.
CREATE TABLE handled (
    event_id   varchar(255) PRIMARY KEY,
    event_type varchar(100) NOT NULL
);

-- Where welcomes are sent. No row: nowhere, and a line in the log has to do.
CREATE TABLE welcome_service (
    url text NOT NULL
);
