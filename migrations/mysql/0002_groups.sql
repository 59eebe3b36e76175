-- What keeps groups in order: the lock of a group, and the order after its rows were changed. Called by the engine and by the
-- procedures of 0003_api.sql; no app's login may.
--
-- Groups are a list in JSON: [{"f": function, "g": group key}, …]. Which bucket a group has, everybody computes alike:
-- CRC32(CONCAT(function, '/', group_key)) MOD 1000.

-- Locks groups until the end of the transaction, in the order of their buckets. Before the rows, see 0001_engine.sql.
DROP PROCEDURE IF EXISTS lock_groups;
CREATE PROCEDURE lock_groups(p_groups LONGTEXT) SQL SECURITY INVOKER
BEGIN
    DECLARE v_bucket, v_locked BIGINT;
    DECLARE v_end BOOLEAN DEFAULT FALSE;
    DECLARE buckets CURSOR FOR
        SELECT DISTINCT CRC32(CONCAT(t.f, '/', t.g)) MOD 1000 AS bucket
        FROM JSON_TABLE(p_groups, '$[*]' COLUMNS (f VARBINARY(190) PATH '$.f', g VARBINARY(512) PATH '$.g')) AS t
        ORDER BY bucket;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_end = TRUE;
    OPEN buckets;
    FETCH buckets INTO v_bucket;
    WHILE NOT v_end DO
        SELECT bucket INTO v_locked FROM `groups` FORCE INDEX (PRIMARY) WHERE bucket = v_bucket FOR UPDATE;
        FETCH buckets INTO v_bucket;
    END WHILE;
    CLOSE buckets;
END;

-- Puts one group in order, under its lock and after its rows were changed. Of a serial function at most one message of a
-- group is not blocked: the first, unless a later one had begun to run or is being claimed at this moment. Statements of
-- their own, so that each sees what was committed before it.
DROP PROCEDURE IF EXISTS order_group;
CREATE PROCEDURE order_group(p_function VARCHAR(190), p_group VARBINARY(512)) SQL SECURITY INVOKER
proc: BEGIN
    DECLARE v_now BIGINT DEFAULT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6));
    DECLARE v_serial, v_running, v_head, v_blocked, v_first, v_back BIGINT;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_back = NULL; -- Else whoever calls takes it for its own.

    SELECT MAX(f.serial) INTO v_serial FROM functions f WHERE f.name = p_function;
    IF v_serial IS NULL OR v_serial = 0 THEN
        UPDATE queue FORCE INDEX (queue_group) SET blocked = 0, due = (available_at <= v_now)
        WHERE `function` = p_function AND group_key = p_group AND blocked = 1;
        LEAVE proc;
    END IF;

    SELECT MIN(q.seq) INTO v_head FROM queue q FORCE INDEX (queue_group)
    WHERE q.`function` = p_function AND q.group_key = p_group AND q.blocked = 0;
    SELECT MIN(q.seq) INTO v_blocked FROM queue q FORCE INDEX (queue_group)
    WHERE q.`function` = p_function AND q.group_key = p_group AND q.blocked = 1;
    SET v_first = LEAST(COALESCE(v_head, v_blocked), COALESCE(v_blocked, v_head));
    SELECT COUNT(*) INTO v_running FROM queue q FORCE INDEX (queue_group)
    WHERE q.`function` = p_function AND q.group_key = p_group AND q.blocked = 0 AND q.state = 'running';

    -- Who stands at the head and is not the first has to wait again (the first one came back). One that is being claimed is
    -- locked: it keeps its place, and the first waits for its end.
    again: LOOP
        SET v_back = NULL;
        SELECT q.seq INTO v_back FROM queue q FORCE INDEX (queue_group)
        WHERE q.`function` = p_function AND q.group_key = p_group AND q.blocked = 0 AND q.state = 'available'
          AND (q.seq > v_first OR v_running > 0)
        LIMIT 1 FOR UPDATE SKIP LOCKED;
        IF v_back IS NULL THEN
            LEAVE again;
        END IF;
        UPDATE queue SET blocked = 1, due = 0 WHERE seq = v_back;
    END LOOP;

    SELECT MIN(q.seq) INTO v_head FROM queue q FORCE INDEX (queue_group)
    WHERE q.`function` = p_function AND q.group_key = p_group AND q.blocked = 0;
    IF v_head IS NULL THEN
        UPDATE queue SET blocked = 0, due = (available_at <= v_now) WHERE seq = v_first AND blocked = 1;
    END IF;
END;

-- The same for several groups.
DROP PROCEDURE IF EXISTS order_groups;
CREATE PROCEDURE order_groups(p_groups LONGTEXT) SQL SECURITY INVOKER
BEGIN
    DECLARE v_function VARCHAR(190);
    DECLARE v_group VARBINARY(512);
    DECLARE v_end BOOLEAN DEFAULT FALSE;
    DECLARE list CURSOR FOR
        SELECT DISTINCT t.f, t.g
        FROM JSON_TABLE(p_groups, '$[*]' COLUMNS (f VARCHAR(190) PATH '$.f', g VARBINARY(512) PATH '$.g')) AS t;
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_end = TRUE;
    OPEN list;
    FETCH list INTO v_function, v_group;
    WHILE NOT v_end DO
        CALL order_group(v_function, v_group);
        FETCH list INTO v_function, v_group;
    END WHILE;
    CLOSE list;
END;
