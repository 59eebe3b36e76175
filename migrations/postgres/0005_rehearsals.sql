-- Runs that are rehearsed (`semel check`): a guest's transaction behind the same walls, for a claim that nobody holds.
--
-- The engine announces one with a fresh token, in a commit of its own (rehearsal_begin.sql), and takes that back as soon as it
-- was entered (rehearsal_end.sql). What is entered is a row of `semel.guard` as a claim's is, but with the number of no
-- message: no acknowledgement takes it away (SM002), so the server itself refuses to commit (SM003).
--
-- TRANSACTIONS: rehearsal_begin, rehearsal_end: one statement each. A rehearsal is a run as 0001_engine.sql has it, with
-- semel_api.rehearse instead of enter, and rolled back.

CREATE TABLE semel.rehearsals (
    token_hash bytea  PRIMARY KEY,
    function   text   NOT NULL,
    version    bigint NOT NULL,
    since      bigint NOT NULL
);

-- Binds this transaction to a rehearsal; SM004 if none was announced with this token, or one of another app. Returns what
-- `enter` does.
CREATE FUNCTION semel_api.rehearse(p_token bytea, OUT xid bigint, OUT pid bigint)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_xid xid8 := pg_current_xact_id();
    v_function text;
    v_version bigint;
BEGIN
    SELECT r.function, r.version INTO v_function, v_version
    FROM semel.rehearsals r
    JOIN semel.versions v ON v.function = r.function AND v.version = r.version
    LEFT JOIN semel.apps a ON a.app = v.app
    WHERE r.token_hash = sha256(p_token)
      AND session_user IN (a.login, current_user); -- The engine itself, where there is one login for all.
    IF NOT FOUND THEN
        RAISE EXCEPTION 'semel: no such rehearsal was announced' USING ERRCODE = 'SM004';
    END IF;
    INSERT INTO semel.guard (xid, seq, fence, token_hash, login, function, version, group_key)
    VALUES (v_xid, -1, 0, sha256(p_token), session_user, v_function, v_version, NULL);
    xid := v_xid::text::bigint;
    pid := pg_backend_pid();
END
$$;

-- As app_grants.sql does for apps that come later.
DO $$
DECLARE
    r name;
BEGIN
    FOR r IN
        SELECT a.login FROM semel.apps a JOIN pg_catalog.pg_roles p ON p.rolname = a.login
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION semel_api.rehearse TO %I', r);
    END LOOP;
END
$$;
