-- What the login of an app may call: the seam between a guest's transaction and the engine's tables.
--
-- Every function is SECURITY DEFINER with a fixed search path, names every table with its schema, runs no dynamic SQL, and
-- asks for the token of a claim, which no guest ever sees: a guest that calls one of these in its own SQL gets SM004.
-- A claim that was entered has a row in `semel.guard`, under the id of the transaction that entered it. No transaction
-- commits while it holds such a row, and only `ack` takes it away: effects without an acknowledgement cannot be. The row
-- is never committed, so its table needs no log. `enter` does not touch the queue: heartbeats must get through.

CREATE SCHEMA semel_api;
REVOKE ALL ON SCHEMA semel_api FROM PUBLIC;

CREATE UNLOGGED TABLE semel.guard (
    xid        xid8   NOT NULL,
    seq        bigint NOT NULL,
    fence      bigint NOT NULL,
    token_hash bytea  NOT NULL,
    login      text   NOT NULL,
    function   text   NOT NULL,
    version    bigint NOT NULL,
    group_key  text,
    PRIMARY KEY (xid, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Groups into which this transaction published: put in order at its acknowledgement, so that their locks are held only
-- from there to the commit.
CREATE UNLOGGED TABLE semel.published_groups (
    xid       xid8 NOT NULL,
    function  text NOT NULL,
    group_key text NOT NULL,
    PRIMARY KEY (xid, function, group_key)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE FUNCTION semel.guard_check() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM semel.guard WHERE xid = NEW.xid AND seq = NEW.seq) THEN
        RAISE EXCEPTION 'semel: a commit without its acknowledgement' USING ERRCODE = 'SM003';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON semel.guard DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION semel.guard_check();

-- Binds this transaction to a claim; SM001 if the claim no longer holds, is of another app, or was not begun. Returns the id of the
-- transaction (for pg_xact_status) and the session's process (for pg_terminate_backend).
CREATE FUNCTION semel_api.enter(p_seq bigint, p_fence bigint, p_token bytea, OUT xid bigint, OUT pid bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_function text;
    v_version bigint;
    v_group text;
BEGIN
    SELECT q.function, q.version, q.group_key INTO v_function, v_version, v_group
    FROM semel.queue q
    JOIN semel.versions v ON v.function = q.function AND v.version = q.version
    LEFT JOIN semel.apps a ON a.app = v.app
    WHERE q.seq = p_seq AND q.fence = p_fence AND q.token_hash = sha256(p_token) AND q.state = 'running'
      AND (q.contract <> 'begin-once' OR q.begun_at IS NOT NULL)
      AND session_user IN (a.login, current_user); -- The engine itself, where there is one login for all.
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: the claim does not hold' USING ERRCODE = 'SM001';
    END IF;
    IF EXISTS (SELECT FROM semel.guard g WHERE g.xid = v_xid AND (g.function <> v_function OR g.version <> v_version)) THEN
        RAISE EXCEPTION 'semel: claims of two versions in one transaction' USING ERRCODE = 'SM005';
    END IF;
    INSERT INTO semel.guard (xid, seq, fence, token_hash, login, function, version, group_key)
    VALUES (v_xid, p_seq, p_fence, sha256(p_token), session_user, v_function, v_version, v_group);
    xid := v_xid::text::bigint;
    pid := pg_backend_pid();
END
$$;

-- The function for which this very transaction works: where its state is. SM004 without a claim entered here.
CREATE FUNCTION semel.entered(p_token bytea) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_function text;
BEGIN
    SELECT g.function INTO v_function FROM semel.guard g
    WHERE g.xid = pg_current_xact_id_if_assigned() AND g.token_hash = sha256(p_token) AND g.login = session_user
    LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no claim was entered in this transaction' USING ERRCODE = 'SM004';
    END IF;
    RETURN v_function;
END
$$;

-- Acknowledges a claim, as the last statement but two before COMMIT: history, attempt, the order of its group and of those
-- it published into, out of the queue, guard away. SM004 if this transaction did not enter it, SM002 if it no longer
-- holds. Returns the id of the transaction. The locks of all groups at once, and before the row. From here on the session
-- waits for nobody longer than 5 s, nor may it stand still longer: others wait for it.
CREATE FUNCTION semel_api.ack(
    p_seq bigint, p_fence bigint, p_token bytea,
    p_answered boolean, p_answer_content_type text, p_answer_headers text, p_answer_body bytea,
    p_started_at bigint, p_ended_at bigint, p_fuel bigint, p_statements bigint, p_sql_micros bigint, p_published bigint,
    p_logs text, p_logs_dropped bigint
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_functions text[];
    v_groups text[];
    v_row semel.queue%ROWTYPE;
    v_now bigint;
BEGIN
    PERFORM FROM semel.guard g
    WHERE g.xid = v_xid AND g.seq = p_seq AND g.fence = p_fence AND g.token_hash = sha256(p_token) AND g.login = session_user;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no claim was entered in this transaction' USING ERRCODE = 'SM004';
    END IF;
    PERFORM set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '5s', true);
    SELECT array_agg(t.function), array_agg(t.group_key) INTO v_functions, v_groups FROM (
        SELECT g.function, g.group_key FROM semel.guard g WHERE g.xid = v_xid AND g.group_key IS NOT NULL
        UNION
        SELECT p.function, p.group_key FROM semel.published_groups p WHERE p.xid = v_xid
    ) AS t;
    IF v_groups IS NOT NULL THEN
        PERFORM semel.lock_groups(v_functions, v_groups);
    END IF;
    v_now := semel.now();
    DELETE FROM semel.queue q
    WHERE q.seq = p_seq AND q.fence = p_fence AND q.token_hash = sha256(p_token) AND q.state = 'running'
    RETURNING q.* INTO v_row;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: the claim no longer holds' USING ERRCODE = 'SM002';
    END IF;
    INSERT INTO semel.history
        (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, answered,
         answer_content_type, answer_headers, answer_body)
    VALUES (v_row.seq, v_row.function, 'completed', v_row.attempt, v_row.attempts_before, v_row.fence, v_row.version,
            v_row.available_at, v_now, p_answered, p_answer_content_type, p_answer_headers, p_answer_body);
    INSERT INTO semel.attempts
        (seq, fence, attempt, function, version, host, claimed_at, started_at, ended_at, outcome,
         fuel, statements, sql_micros, published, logs, logs_dropped)
    VALUES (v_row.seq, v_row.fence, v_row.attempt, v_row.function, v_row.version, v_row.host, v_row.claimed_at, p_started_at,
            coalesce(p_ended_at, v_now), 'completed', p_fuel, p_statements, p_sql_micros, p_published, p_logs, p_logs_dropped)
    ON CONFLICT (seq, fence) DO UPDATE -- Whatever somebody who did not hold the claim has said of it.
    SET started_at = excluded.started_at, ended_at = excluded.ended_at, outcome = excluded.outcome, error = NULL,
        fuel = excluded.fuel, statements = excluded.statements, sql_micros = excluded.sql_micros,
        published = excluded.published, logs = excluded.logs, logs_dropped = excluded.logs_dropped;
    DELETE FROM semel.guard g WHERE g.xid = v_xid AND g.seq = p_seq;
    IF v_groups IS NOT NULL THEN
        DELETE FROM semel.published_groups p WHERE p.xid = v_xid;
        PERFORM semel.order_groups(v_functions, v_groups);
    END IF;
    RETURN v_xid::text::bigint;
END
$$;

-- `state`, in the namespace of the function that was entered. With `p_lock` nobody else changes the key before the end
-- of the transaction.
CREATE FUNCTION semel_api.state_get(p_token bytea, p_key text, p_lock boolean DEFAULT false) RETURNS bytea
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_namespace text := semel.entered(p_token);
    v_value bytea;
BEGIN
    IF p_lock THEN
        SELECT value INTO v_value FROM semel.state WHERE namespace = v_namespace AND key = p_key FOR UPDATE;
    ELSE
        SELECT value INTO v_value FROM semel.state WHERE namespace = v_namespace AND key = p_key;
    END IF;
    RETURN v_value;
END
$$;

CREATE FUNCTION semel_api.state_set(p_token bytea, p_key text, p_value bytea) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO semel.state (namespace, key, value) VALUES (semel.entered(p_token), p_key, p_value)
    ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value;
END
$$;

-- Whether it was there.
CREATE FUNCTION semel_api.state_delete(p_token bytea, p_key text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_namespace text := semel.entered(p_token);
BEGIN
    DELETE FROM semel.state WHERE namespace = v_namespace AND key = p_key;
    RETURN FOUND;
END
$$;

-- The sum; NULL if the value is no counter (its decimal text) or the sum is out of range. Two at once wait for each other.
CREATE FUNCTION semel_api.state_add(p_token bytea, p_key text, p_delta bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_namespace text := semel.entered(p_token);
    v_text text;
    v_sum numeric;
BEGIN
    LOOP
        INSERT INTO semel.state (namespace, key, value) VALUES (v_namespace, p_key, convert_to(p_delta::text, 'UTF8'))
        ON CONFLICT (namespace, key) DO NOTHING;
        IF FOUND THEN
            RETURN p_delta;
        END IF;
        SELECT encode(value, 'escape') INTO v_text FROM semel.state
        WHERE namespace = v_namespace AND key = p_key FOR UPDATE;
        EXIT WHEN FOUND; -- Else it was deleted in the meantime.
    END LOOP;
    IF octet_length(v_text) > 100 OR v_text !~ '^[+-]?[0-9]+$' THEN
        RETURN NULL;
    END IF;
    v_sum := v_text::numeric;
    IF v_sum NOT BETWEEN -9223372036854775808 AND 9223372036854775807
       OR v_sum + p_delta NOT BETWEEN -9223372036854775808 AND 9223372036854775807 THEN
        RETURN NULL;
    END IF;
    v_sum := v_sum + p_delta;
    UPDATE semel.state SET value = convert_to(v_sum::bigint::text, 'UTF8') WHERE namespace = v_namespace AND key = p_key;
    RETURN v_sum::bigint;
END
$$;

-- Keys that begin with a prefix, in byte order, after a key (or NULL): up to `p_limit`, and while they are `p_bytes` in
-- all; always one. Keys have at most 512 bytes, so none with this prefix is beyond it and 128 of the last character.
CREATE FUNCTION semel_api.state_scan(p_token bytea, p_prefix text, p_after text, p_limit bigint, p_bytes bigint)
    RETURNS TABLE (key text, value bytea)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_namespace text := semel.entered(p_token);
    v_held bigint := 0;
    v_row record;
BEGIN
    FOR v_row IN
        SELECT s.key, s.value, octet_length(s.value) AS size FROM semel.state s
        WHERE s.namespace = v_namespace AND s.key >= p_prefix AND s.key > coalesce(p_after, '')
          AND s.key <= p_prefix || repeat(chr(1114111), 128) AND starts_with(s.key, p_prefix)
        ORDER BY s.key LIMIT p_limit
    LOOP
        EXIT WHEN v_held > 0 AND v_held + v_row.size + 1024 > p_bytes;
        v_held := v_held + v_row.size + 1024;
        key := v_row.key;
        value := v_row.value;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Whom events of these topics fan out to; a topic that is missing has no subscriber.
CREATE FUNCTION semel_api.subscribers(p_token bytea, p_topics text[]) RETURNS TABLE (topic text, function text)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    PERFORM semel.entered(p_token);
    RETURN QUERY SELECT s.topic, s.function FROM semel.subscriptions s
                 WHERE s.topic = ANY (p_topics) ORDER BY s.topic, s.function;
END
$$;

-- Messages that become part of this transaction: one per event and subscriber, flattened into arrays, with the ids that
-- message.rs derives. Their groups are put in order at the acknowledgement.
CREATE FUNCTION semel_api.publish(
    p_token bytea, p_ids text[], p_events text[], p_functions text[], p_topics text[], p_groups text[],
    p_content_types text[], p_headers text[], p_bodies bytea[], p_priorities bigint[], p_delays bigint[]
) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    PERFORM semel.entered(p_token);
    PERFORM semel.enqueue(p_ids, p_events, p_functions, p_topics, p_groups, p_content_types, p_headers, p_bodies,
                          p_priorities, p_delays);
    INSERT INTO semel.published_groups (xid, function, group_key)
    SELECT DISTINCT pg_current_xact_id(), f, g FROM unnest(p_functions, p_groups) AS t (f, g) WHERE g IS NOT NULL
    ON CONFLICT DO NOTHING;
END
$$;

-- App migrations run in a session of the app's owner, which is no engine's session at any moment: what a migration leaves
-- behind for the commit (a deferred trigger) has no powers there. The engine announces a migration with a token
-- (app_migration_begin.sql); the owner's transaction runs the text and calls this, so that both are one commit. Of an app
-- one migration is under way at a time, whoever deploys: the row is its turn.
CREATE TABLE semel.migrating (
    app        text   PRIMARY KEY,
    token_hash bytea  NOT NULL,
    name       text   NOT NULL,
    function   text   NOT NULL,
    checksum   text   NOT NULL,
    since      bigint NOT NULL
);

CREATE FUNCTION semel_api.migrated(p_token bytea) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_row semel.migrating%ROWTYPE;
BEGIN
    DELETE FROM semel.migrating m
    WHERE m.token_hash = sha256(p_token)
      -- The engine itself, where there is one login for all.
      AND session_user IN ((SELECT a.owner FROM semel.apps a WHERE a.app = m.app), current_user)
    RETURNING m.* INTO v_row;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no such migration was announced' USING ERRCODE = 'SM004';
    END IF;
    INSERT INTO semel.app_migrations (app, name, function, checksum, applied_at)
    VALUES (v_row.app, v_row.name, v_row.function, v_row.checksum, semel.now());
END
$$;
