-- What the login of an app may call: the seam between a guest's transaction and the engine's tables.
--
-- Every procedure is SQL SECURITY DEFINER, runs no dynamic SQL, and asks for the token of a claim, which is bound and no guest is
-- told. (Where the server logs statements with their values, its list of sessions shows them to the same login.) A guest cannot
-- call any of them in any case: CALL is none of the words that pass the gate, and no login may make a function that would.
-- There is no row that guards a transaction as on Postgres: no trigger here runs at COMMIT, so who has the gate behind him has
-- all. A claim is looked up in the queue each time, by its number and its token; `enter` and the others read it without a lock,
-- so heartbeats get through. `ack` is where it counts, and takes the row.
--
-- Bodies of several messages travel as one value: of each its place in it (from 1) and its length.

-- Runs that are rehearsed (`semel check`): a guest's transaction behind the same walls, for a claim that nobody holds (its
-- number is -1, which no message has: `ack` finds nothing). The engine announces one, in a commit of its own, and takes that
-- back when it is over.
CREATE TABLE IF NOT EXISTS rehearsals (
    token_hash VARBINARY(32) NOT NULL PRIMARY KEY,
    `function` VARCHAR(190)  NOT NULL,
    version    BIGINT        NOT NULL,
    since      BIGINT        NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Whether the session is of this login, or the engine's own, where there is one login for all. Called by definer procedures:
-- there USER() is who called, and CURRENT_USER() the engine.
DROP PROCEDURE IF EXISTS is_of;
CREATE PROCEDURE is_of(p_login VARCHAR(190), OUT p_is BIGINT) SQL SECURITY INVOKER
BEGIN
    DECLARE v_user VARBINARY(400) DEFAULT CAST(USER() AS BINARY);
    DECLARE v_engine VARBINARY(400) DEFAULT CAST(CURRENT_USER() AS BINARY);
    -- The host's name is what comes after the last @.
    SET v_user = LEFT(v_user, LENGTH(v_user) - LENGTH(SUBSTRING_INDEX(v_user, '@', -1)) - 1);
    SET v_engine = LEFT(v_engine, LENGTH(v_engine) - LENGTH(SUBSTRING_INDEX(v_engine, '@', -1)) - 1);
    SET p_is = COALESCE(v_user = CAST(p_login AS BINARY), FALSE) OR v_user = v_engine;
END;

-- The function for which a transaction works: where its state is. SM004 without a claim that holds, or of another app.
DROP PROCEDURE IF EXISTS entered;
CREATE PROCEDURE entered(p_seq BIGINT, p_token VARBINARY(16), OUT p_function VARCHAR(190)) SQL SECURITY INVOKER
BEGIN
    DECLARE v_hash VARBINARY(32) DEFAULT UNHEX(SHA2(p_token, 256));
    DECLARE v_function, v_login VARCHAR(190);
    DECLARE v_is BIGINT;
    IF p_seq = -1 THEN
        SELECT r.`function`, a.login INTO v_function, v_login
        FROM rehearsals r
        JOIN versions v ON v.`function` = r.`function` AND v.version = r.version
        LEFT JOIN apps a ON a.app = v.app
        WHERE r.token_hash = v_hash;
    ELSE
        SELECT q.`function`, a.login INTO v_function, v_login
        FROM queue q
        JOIN versions v ON v.`function` = q.`function` AND v.version = q.version
        LEFT JOIN apps a ON a.app = v.app
        WHERE q.seq = p_seq AND q.token_hash = v_hash AND q.state = 'running';
    END IF;
    CALL is_of(v_login, v_is);
    IF v_function IS NULL OR NOT v_is THEN
        SIGNAL SQLSTATE 'SM004' SET MESSAGE_TEXT = 'semel: no such claim holds';
    END IF;
    SET p_function = v_function;
END;

-- Looks whether claims hold, of which the list is [{"s": seq, "f": fence}, …], before anything is done for them; SM001 if one
-- of them no longer holds, is of another app, or was not begun; SM005 if they are of two versions. From here on the session
-- waits as long for a lock as a guest may: its deadline is sooner.
DROP PROCEDURE IF EXISTS enter;
CREATE PROCEDURE enter(p_claims LONGTEXT, p_token VARBINARY(16)) SQL SECURITY DEFINER
BEGIN
    DECLARE v_hash VARBINARY(32) DEFAULT UNHEX(SHA2(p_token, 256));
    DECLARE v_claims, v_hold, v_versions, v_is BIGINT;
    DECLARE v_login VARCHAR(190);
    SELECT COUNT(*), COUNT(q.seq), COUNT(DISTINCT q.`function`, q.version), MIN(a.login)
    INTO v_claims, v_hold, v_versions, v_login
    FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (seq BIGINT PATH '$.s', fence BIGINT PATH '$.f')) AS c
    LEFT JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq AND q.fence = c.fence AND q.token_hash = v_hash AND q.state = 'running'
        AND (q.contract <> 'begin-once' OR q.begun_at IS NOT NULL)
    LEFT JOIN versions v ON v.`function` = q.`function` AND v.version = q.version
    LEFT JOIN apps a ON a.app = v.app;
    IF v_versions > 1 THEN
        SIGNAL SQLSTATE 'SM005' SET MESSAGE_TEXT = 'semel: claims of two versions in one transaction';
    END IF;
    CALL is_of(v_login, v_is);
    IF v_claims = 0 OR v_hold <> v_claims OR NOT v_is THEN
        SIGNAL SQLSTATE 'SM001' SET MESSAGE_TEXT = 'semel: the claim does not hold';
    END IF;
    SET SESSION innodb_lock_wait_timeout = 60;
END;

-- The same for a rehearsal; SM004 if none was announced with this token, or one of another app.
DROP PROCEDURE IF EXISTS rehearse;
CREATE PROCEDURE rehearse(p_token VARBINARY(16)) SQL SECURITY DEFINER
BEGIN
    DECLARE v_function VARCHAR(190);
    CALL entered(-1, p_token, v_function);
    SET SESSION innodb_lock_wait_timeout = 60;
END;

-- Acknowledges claims, as the last statement before COMMIT: history, attempts, out of the queue, the order of their groups and
-- of those into which the transaction published (`p_groups`, as for lock_groups, or NULL). Of each claim the list says what
-- `ack` below reads. SM002 if one of them no longer holds, SM004 if they are another app's. The locks of all groups at once,
-- and before the rows; those by their numbers, as the list has them. From here on the session waits for nobody longer than 5 s.
DROP PROCEDURE IF EXISTS ack;
CREATE PROCEDURE ack(p_claims LONGTEXT, p_token VARBINARY(16), p_bodies LONGBLOB, p_groups LONGTEXT) SQL SECURITY DEFINER
BEGIN
    DECLARE v_hash VARBINARY(32) DEFAULT UNHEX(SHA2(p_token, 256));
    DECLARE v_claims, v_hold, v_first, v_now, v_is BIGINT;
    DECLARE v_login VARCHAR(190);
    SET SESSION innodb_lock_wait_timeout = 5;
    IF p_groups IS NOT NULL THEN
        CALL lock_groups(p_groups);
    END IF;

    SELECT COUNT(*) INTO v_claims FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (seq BIGINT PATH '$.s')) AS c;
    SELECT COUNT(*), MIN(q.seq) INTO v_hold, v_first
    FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (seq BIGINT PATH '$.s', fence BIGINT PATH '$.f')) AS c
    STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq
    WHERE q.fence = c.fence AND q.token_hash = v_hash AND q.state = 'running'
    FOR UPDATE;
    IF v_claims = 0 OR v_hold <> v_claims THEN
        SIGNAL SQLSTATE 'SM002' SET MESSAGE_TEXT = 'semel: the claim no longer holds';
    END IF;
    -- One token is of one call of claim, and that of one version: what is true of one of them is true of all.
    SELECT MIN(a.login) INTO v_login
    FROM queue q
    JOIN versions v ON v.`function` = q.`function` AND v.version = q.version
    LEFT JOIN apps a ON a.app = v.app
    WHERE q.seq = v_first;
    CALL is_of(v_login, v_is);
    IF NOT v_is THEN
        SIGNAL SQLSTATE 'SM004' SET MESSAGE_TEXT = 'semel: no such claim holds';
    END IF;

    SET v_now = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    INSERT INTO history
        (seq, `function`, state, attempt, attempts_before, fence, version, available_at, ended_at, answered,
         answer_content_type, answer_headers, answer_body)
    SELECT q.seq, q.`function`, 'completed', q.attempt, q.attempts_before, q.fence, q.version, q.available_at, v_now, c.answered,
           c.content_type, c.headers, SUBSTRING(p_bodies, c.place, c.length)
    FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (
        seq BIGINT PATH '$.s', answered BIGINT PATH '$.answered', content_type LONGTEXT PATH '$.content_type',
        headers LONGTEXT PATH '$.headers', place BIGINT PATH '$.place', length BIGINT PATH '$.length'
    )) AS c
    STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq;
    INSERT INTO attempts
        (seq, fence, attempt, `function`, version, host, claimed_at, started_at, ended_at, outcome,
         fuel, statements, sql_micros, published, logs, logs_dropped)
    SELECT q.seq, q.fence, q.attempt, q.`function`, q.version, q.host, q.claimed_at, c.started_at, COALESCE(c.ended_at, v_now),
           'completed', c.fuel, c.statements, c.sql_micros, c.published, c.logs, c.logs_dropped
    FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (
        seq BIGINT PATH '$.s', started_at BIGINT PATH '$.started_at', ended_at BIGINT PATH '$.ended_at',
        fuel BIGINT PATH '$.fuel', statements BIGINT PATH '$.statements', sql_micros BIGINT PATH '$.sql_micros',
        published BIGINT PATH '$.published', logs LONGTEXT PATH '$.logs', logs_dropped BIGINT PATH '$.logs_dropped'
    )) AS c
    STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq
    -- Whatever somebody who did not hold the claim has said of it.
    ON DUPLICATE KEY UPDATE
        started_at = VALUES(started_at), ended_at = VALUES(ended_at), outcome = VALUES(outcome), error = NULL,
        fuel = VALUES(fuel), statements = VALUES(statements), sql_micros = VALUES(sql_micros),
        published = VALUES(published), logs = VALUES(logs), logs_dropped = VALUES(logs_dropped);
    DELETE q FROM JSON_TABLE(p_claims, '$[*]' COLUMNS (seq BIGINT PATH '$.s', fence BIGINT PATH '$.f')) AS c
    STRAIGHT_JOIN queue q FORCE INDEX (PRIMARY) ON q.seq = c.seq
    WHERE q.fence = c.fence AND q.token_hash = v_hash AND q.state = 'running';
    IF ROW_COUNT() <> v_claims THEN
        SIGNAL SQLSTATE 'SM002' SET MESSAGE_TEXT = 'semel: the claim no longer holds';
    END IF;
    IF p_groups IS NOT NULL THEN
        CALL order_groups(p_groups);
    END IF;
END;

-- `state`, in the namespace of the function that was entered. With `p_lock` nobody else changes the key before the end of the
-- transaction.
DROP PROCEDURE IF EXISTS state_get;
CREATE PROCEDURE state_get(p_seq BIGINT, p_token VARBINARY(16), p_key VARBINARY(512), p_lock BIGINT) SQL SECURITY DEFINER
BEGIN
    DECLARE v_namespace VARCHAR(190);
    CALL entered(p_seq, p_token, v_namespace);
    IF p_lock THEN
        SELECT s.value FROM state s WHERE s.namespace = v_namespace AND s.`key` = p_key FOR UPDATE;
    ELSE
        SELECT s.value FROM state s WHERE s.namespace = v_namespace AND s.`key` = p_key;
    END IF;
END;

DROP PROCEDURE IF EXISTS state_set;
CREATE PROCEDURE state_set(p_seq BIGINT, p_token VARBINARY(16), p_key VARBINARY(512), p_value LONGBLOB) SQL SECURITY DEFINER
BEGIN
    DECLARE v_namespace VARCHAR(190);
    CALL entered(p_seq, p_token, v_namespace);
    INSERT INTO state (namespace, `key`, value) VALUES (v_namespace, p_key, p_value)
    ON DUPLICATE KEY UPDATE value = VALUES(value);
END;

-- Whether it was there.
DROP PROCEDURE IF EXISTS state_delete;
CREATE PROCEDURE state_delete(p_seq BIGINT, p_token VARBINARY(16), p_key VARBINARY(512)) SQL SECURITY DEFINER
BEGIN
    DECLARE v_namespace VARCHAR(190);
    CALL entered(p_seq, p_token, v_namespace);
    DELETE FROM state WHERE namespace = v_namespace AND `key` = p_key;
    SELECT CAST(ROW_COUNT() AS SIGNED) AS deleted;
END;

-- The sum; NULL if the value is no counter (its decimal text) or the sum is out of range. Two at once wait for each other: the
-- row, made with 0 if it is not there, is locked first of all.
DROP PROCEDURE IF EXISTS state_add;
CREATE PROCEDURE state_add(p_seq BIGINT, p_token VARBINARY(16), p_key VARBINARY(512), p_delta BIGINT) SQL SECURITY DEFINER
BEGIN
    DECLARE v_namespace VARCHAR(190);
    DECLARE v_text, v_digits VARCHAR(101) CHARACTER SET latin1 COLLATE latin1_bin;
    DECLARE v_sum DECIMAL(30, 0);
    CALL entered(p_seq, p_token, v_namespace);
    INSERT INTO state (namespace, `key`, value) VALUES (v_namespace, p_key, '0')
    ON DUPLICATE KEY UPDATE value = state.value;
    SELECT CONVERT(LEFT(s.value, 101) USING latin1) INTO v_text
    FROM state s WHERE s.namespace = v_namespace AND s.`key` = p_key FOR UPDATE;
    IF CHAR_LENGTH(v_text) <= 100 AND v_text REGEXP '^[+-]?[0-9]+\\z' THEN
        SET v_digits = TRIM(LEADING '0' FROM SUBSTRING(v_text, IF(LEFT(v_text, 1) IN ('+', '-'), 2, 1)));
        IF CHAR_LENGTH(v_digits) <= 19 THEN
            SET v_sum = IF(LEFT(v_text, 1) = '-', -1, 1) * CAST(CONCAT('0', v_digits) AS DECIMAL(30, 0));
        END IF;
    END IF;
    IF v_sum NOT BETWEEN -9223372036854775808 AND 9223372036854775807
       OR v_sum + p_delta NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN
        SET v_sum = NULL;
    END IF;
    IF v_sum IS NOT NULL THEN
        UPDATE state SET value = CAST(v_sum + p_delta AS CHAR) WHERE namespace = v_namespace AND `key` = p_key;
    END IF;
    SELECT CAST(v_sum + p_delta AS SIGNED) AS total;
END;

-- Keys that begin with a prefix, in byte order, after a key (or NULL): up to `p_limit`, and while they are `p_bytes` in all;
-- always one. The sizes first, so that no more values are read than are returned.
DROP PROCEDURE IF EXISTS state_scan;
CREATE PROCEDURE state_scan(
    p_seq BIGINT, p_token VARBINARY(16), p_prefix VARBINARY(512), p_after VARBINARY(512), p_limit BIGINT, p_bytes BIGINT
) SQL SECURITY DEFINER
BEGIN
    DECLARE v_namespace VARCHAR(190);
    CALL entered(p_seq, p_token, v_namespace);
    SELECT s.`key`, s.value
    FROM (
        SELECT f.`key`, f.size, SUM(f.size) OVER (ORDER BY f.`key` ROWS UNBOUNDED PRECEDING) AS held
        FROM (
            SELECT k.`key`, LENGTH(k.value) + 1024 AS size FROM state k
            WHERE k.namespace = v_namespace AND k.`key` >= p_prefix AND k.`key` > COALESCE(p_after, '')
              AND k.`key` <= CONCAT(p_prefix, REPEAT(UNHEX('FF'), 512)) AND LEFT(k.`key`, LENGTH(p_prefix)) = p_prefix
            ORDER BY k.`key` LIMIT p_limit
        ) AS f
    ) AS found
    JOIN state s ON s.namespace = v_namespace AND s.`key` = found.`key`
    WHERE found.held <= p_bytes OR found.held = found.size
    ORDER BY s.`key`;
END;

-- Whom events of these topics (a list of texts) fan out to; a topic that is missing has no subscriber.
DROP PROCEDURE IF EXISTS subscribers;
CREATE PROCEDURE subscribers(p_seq BIGINT, p_token VARBINARY(16), p_topics LONGTEXT) SQL SECURITY DEFINER
BEGIN
    DECLARE v_function VARCHAR(190);
    CALL entered(p_seq, p_token, v_function);
    SELECT CONVERT(s.topic USING utf8mb4) AS topic, s.`function`
    FROM JSON_TABLE(p_topics, '$[*]' COLUMNS (topic VARBINARY(1024) PATH '$')) AS t
    STRAIGHT_JOIN subscriptions s FORCE INDEX (PRIMARY) ON s.topic = t.topic
    ORDER BY s.topic, s.`function`;
END;

-- Messages that become part of this transaction: one per event and subscriber, with the ids that message.rs derives, as
-- enqueue.sql and enqueue_queue.sql have them. Their groups are put in order at the acknowledgement.
DROP PROCEDURE IF EXISTS publish;
CREATE PROCEDURE publish(p_seq BIGINT, p_token VARBINARY(16), p_messages LONGTEXT, p_bodies LONGBLOB) SQL SECURITY DEFINER
BEGIN
    DECLARE v_function VARCHAR(190);
    DECLARE v_now BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    CALL entered(p_seq, p_token, v_function);
    INSERT INTO messages
        (id, event, `function`, topic, group_key, content_type, headers, body, priority, accepted_at, due_at)
    SELECT t.id, t.event, t.`function`, t.topic, t.group_key, t.content_type, t.headers,
           SUBSTRING(p_bodies, t.place, t.length), t.priority, v_now, v_now + t.delay
    FROM JSON_TABLE(p_messages, '$[*]' COLUMNS (
        number FOR ORDINALITY, id VARCHAR(64) PATH '$.id', event LONGTEXT PATH '$.event',
        `function` VARCHAR(190) PATH '$.function', topic LONGTEXT PATH '$.topic', group_key VARBINARY(512) PATH '$.group',
        content_type LONGTEXT PATH '$.content_type', headers LONGTEXT PATH '$.headers', place BIGINT PATH '$.place',
        length BIGINT PATH '$.length', priority BIGINT PATH '$.priority', delay BIGINT PATH '$.delay'
    )) AS t
    ORDER BY t.number;
    INSERT INTO queue (seq, `function`, group_key, state, urgency, available_at, blocked, due)
    SELECT m.seq, m.`function`, m.group_key, 'available', -m.priority, m.due_at,
           m.group_key IS NOT NULL AND f.serial IS NOT NULL,
           m.due_at <= v_now AND (m.group_key IS NULL OR f.serial IS NULL)
    FROM JSON_TABLE(p_messages, '$[*]' COLUMNS (id VARCHAR(64) PATH '$.id')) AS t
    STRAIGHT_JOIN messages m FORCE INDEX (id) ON m.id = t.id
    LEFT JOIN functions f ON f.name = m.`function` AND f.serial = 1;
END;
