-- Claims that share a transaction: entered by one call, acknowledged by one, and guarded by one row.
--
-- A run, as 0001_engine.sql has it, is now: semel_api.enter with all claims of the transaction, before the first of them
-- runs; SAVEPOINT canary; the guests, one after another; RELEASE canary; semel_api.ack with all of them; the rest as before.

-- Never committed, so there is nothing in it to keep.
DROP TABLE semel.guard;
CREATE UNLOGGED TABLE semel.guard (
    xid        xid8     PRIMARY KEY,
    seqs       bigint[] NOT NULL,
    token_hash bytea    NOT NULL,
    login      text     NOT NULL,
    function   text     NOT NULL,
    groups     text[]   -- those of the claims, or NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE OR REPLACE FUNCTION semel.guard_check() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM semel.guard WHERE xid = NEW.xid) THEN
        RAISE EXCEPTION 'semel: a commit without its acknowledgement' USING ERRCODE = 'SM003';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON semel.guard DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION semel.guard_check();

-- Binds this transaction to claims, once; SM001 if one of them no longer holds, is of another app, or was not begun; SM005 if
-- they are of two versions. Returns the id of the transaction (for pg_xact_status), the session's process (for
-- pg_terminate_backend), and how many migrations the app has had: plans of before may be out of date.
DROP FUNCTION semel_api.enter(bigint, bigint, bytea);
CREATE FUNCTION semel_api.enter(
    p_seqs bigint[], p_fences bigint[], p_token bytea, OUT xid bigint, OUT pid bigint, OUT migrations bigint
)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_hash bytea := sha256(p_token);
    v_function text;
    v_versions bigint;
    v_count bigint;
    v_app text;
    v_groups text[];
BEGIN
    SELECT count(*), count(DISTINCT (q.function, q.version)), min(q.function), min(v.app), array_agg(DISTINCT q.group_key)
    INTO v_count, v_versions, v_function, v_app, v_groups
    FROM unnest(p_seqs, p_fences) AS c (seq, fence)
    JOIN semel.queue q ON q.seq = c.seq AND q.fence = c.fence
    JOIN semel.versions v ON v.function = q.function AND v.version = q.version
    LEFT JOIN semel.apps a ON a.app = v.app
    WHERE q.token_hash = v_hash AND q.state = 'running'
      AND (q.contract <> 'begin-once' OR q.begun_at IS NOT NULL)
      AND session_user IN (a.login, current_user); -- The engine itself, where there is one login for all.
    IF v_count = 0 OR v_count <> cardinality(p_seqs) THEN
        RAISE EXCEPTION 'semel: the claim does not hold' USING ERRCODE = 'SM001';
    END IF;
    IF v_versions > 1 THEN
        RAISE EXCEPTION 'semel: claims of two versions in one transaction' USING ERRCODE = 'SM005';
    END IF;
    v_groups := array_remove(v_groups, NULL);
    INSERT INTO semel.guard (xid, seqs, token_hash, login, function, groups)
    VALUES (v_xid, p_seqs, v_hash, session_user, v_function, nullif(v_groups, '{}'));
    xid := v_xid::text::bigint;
    pid := pg_backend_pid();
    migrations := (SELECT count(*) FROM semel.app_migrations m WHERE m.app = v_app);
END
$$;

-- Acknowledges claims that this transaction entered, as the last statement but two before COMMIT: history, attempts, the
-- order of their groups and of those it published into, out of the queue, guard away. One element per claim. What was entered
-- and is not acknowledged stays claimed: the host has not run it here. SM004 if this transaction did not enter all of them,
-- SM002 if one of them no longer holds. Returns the id of the transaction. The locks of all groups at once, and before the rows. From here on the session waits for nobody
-- longer than 5 s, nor may it stand still longer: others wait for it.
DROP FUNCTION semel_api.ack(
    bigint, bigint, bytea, boolean, text, text, bytea, bigint, bigint, bigint, bigint, bigint, bigint, text, bigint
);
CREATE FUNCTION semel_api.ack(
    p_seqs bigint[], p_fences bigint[], p_token bytea,
    p_answered boolean[], p_answer_content_types text[], p_answer_headers text[], p_answer_bodies bytea[],
    p_started_at bigint[], p_ended_at bigint[], p_fuel bigint[], p_statements bigint[], p_sql_micros bigint[],
    p_published bigint[], p_logs text[], p_logs_dropped bigint[]
) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_hash bytea := sha256(p_token);
    v_guard semel.guard%ROWTYPE;
    v_functions text[];
    v_groups text[];
    v_count bigint;
    v_now bigint;
BEGIN
    SELECT * INTO v_guard FROM semel.guard g
    WHERE g.xid = v_xid AND g.token_hash = v_hash AND g.login = session_user AND g.seqs @> p_seqs AND cardinality(p_seqs) > 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no claim was entered in this transaction' USING ERRCODE = 'SM004';
    END IF;
    PERFORM set_config('lock_timeout', '5s', true), set_config('idle_in_transaction_session_timeout', '5s', true);
    SELECT array_agg(t.function), array_agg(t.group_key) INTO v_functions, v_groups FROM (
        SELECT v_guard.function, g.group_key FROM unnest(v_guard.groups) AS g (group_key)
        UNION
        SELECT p.function, p.group_key FROM semel.published_groups p WHERE p.xid = v_xid
    ) AS t;
    IF v_groups IS NOT NULL THEN
        PERFORM semel.lock_groups(v_functions, v_groups);
    END IF;
    v_now := semel.now();
    WITH gone AS (
        DELETE FROM semel.queue q
        USING unnest(
            p_seqs, p_fences, p_answered, p_answer_content_types, p_answer_headers, p_answer_bodies, p_started_at,
            p_ended_at, p_fuel, p_statements, p_sql_micros, p_published, p_logs, p_logs_dropped
        ) AS d (
            seq, fence, answered, content_type, headers, body, started_at, ended_at, fuel, statements, sql_micros,
            published, logs, logs_dropped
        )
        WHERE q.seq = d.seq AND q.fence = d.fence AND q.token_hash = v_hash AND q.state = 'running'
        RETURNING q.seq, q.fence, q.function, q.version, q.attempt, q.attempts_before, q.available_at, q.host,
                  q.claimed_at, d.answered, d.content_type, d.headers, d.body, d.started_at, d.ended_at, d.fuel,
                  d.statements, d.sql_micros, d.published, d.logs, d.logs_dropped
    ),
    kept AS (
        INSERT INTO semel.history
            (seq, function, state, attempt, attempts_before, fence, version, available_at, ended_at, answered,
             answer_content_type, answer_headers, answer_body)
        SELECT seq, function, 'completed', attempt, attempts_before, fence, version, available_at, v_now, answered,
               content_type, headers, body
        FROM gone
    ),
    said AS (
        INSERT INTO semel.attempts
            (seq, fence, attempt, function, version, host, claimed_at, started_at, ended_at, outcome,
             fuel, statements, sql_micros, published, logs, logs_dropped)
        SELECT seq, fence, attempt, function, version, host, claimed_at, started_at, coalesce(ended_at, v_now),
               'completed', fuel, statements, sql_micros, published, logs, logs_dropped
        FROM gone
        ON CONFLICT (seq, fence) DO UPDATE -- Whatever somebody who did not hold the claim has said of it.
        SET started_at = excluded.started_at, ended_at = excluded.ended_at, outcome = excluded.outcome, error = NULL,
            fuel = excluded.fuel, statements = excluded.statements, sql_micros = excluded.sql_micros,
            published = excluded.published, logs = excluded.logs, logs_dropped = excluded.logs_dropped
    )
    SELECT count(*) INTO v_count FROM gone;
    IF v_count <> cardinality(p_seqs) THEN
        RAISE EXCEPTION 'semel: the claim no longer holds' USING ERRCODE = 'SM002';
    END IF;
    DELETE FROM semel.guard g WHERE g.xid = v_xid;
    IF v_groups IS NOT NULL THEN
        DELETE FROM semel.published_groups p WHERE p.xid = v_xid;
        PERFORM semel.order_groups(v_functions, v_groups);
    END IF;
    RETURN v_xid::text::bigint;
END
$$;

-- As 0005_rehearsals.sql has it, with a row of the guard as it is now.
DROP FUNCTION semel_api.rehearse(bytea);
CREATE FUNCTION semel_api.rehearse(p_token bytea, OUT xid bigint, OUT pid bigint, OUT migrations bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_function text;
    v_app text;
BEGIN
    SELECT r.function, v.app INTO v_function, v_app
    FROM semel.rehearsals r
    JOIN semel.versions v ON v.function = r.function AND v.version = r.version
    LEFT JOIN semel.apps a ON a.app = v.app
    WHERE r.token_hash = sha256(p_token)
      AND session_user IN (a.login, current_user); -- The engine itself, where there is one login for all.
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no such rehearsal was announced' USING ERRCODE = 'SM004';
    END IF;
    INSERT INTO semel.guard (xid, seqs, token_hash, login, function, groups)
    VALUES (v_xid, '{-1}', sha256(p_token), session_user, v_function, NULL);
    xid := v_xid::text::bigint;
    pid := pg_backend_pid();
    migrations := (SELECT count(*) FROM semel.app_migrations m WHERE m.app = v_app);
END
$$;

-- As app_grants.sql does for apps that come later.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA semel, semel_api FROM PUBLIC;
DO $$
DECLARE
    r name;
BEGIN
    FOR r IN
        SELECT a.login FROM semel.apps a JOIN pg_catalog.pg_roles p ON p.rolname = a.login
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION semel_api.enter, semel_api.ack, semel_api.rehearse TO %I', r);
    END LOOP;
END
$$;
