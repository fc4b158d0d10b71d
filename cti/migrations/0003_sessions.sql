-- Log-ins. A session is a chain of refresh tokens, each used once; its id is the `sid` of the access tokens made from it.

CREATE TABLE secrets (
    name    text        PRIMARY KEY,
    value   bytea       NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sessions (
    sid     uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    login   text        NOT NULL REFERENCES users ON DELETE CASCADE,
    created timestamptz NOT NULL DEFAULT now(),
    expires timestamptz NOT NULL,
    revoked timestamptz,
    why     text,
    address text
);
CREATE INDEX sessions_login ON sessions (login) WHERE revoked IS NULL;
CREATE INDEX sessions_revoked ON sessions (revoked) WHERE revoked IS NOT NULL;
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE refresh_tokens (
    token_hash bytea       PRIMARY KEY,
    sid        uuid        NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created    timestamptz NOT NULL DEFAULT now(),
    used       timestamptz
);
CREATE INDEX refresh_tokens_sid ON refresh_tokens (sid);

COMMENT ON COLUMN refresh_tokens.token_hash IS 'sha256 of 256 random bits';

-- Whoever ends a session, also by hand in psql, every server hears of it at once.
CREATE FUNCTION session_revoked() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cti_session_revoked', OLD.sid::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER session_revoked AFTER UPDATE OF revoked ON sessions
    FOR EACH ROW WHEN (OLD.revoked IS NULL AND NEW.revoked IS NOT NULL) EXECUTE FUNCTION session_revoked();
CREATE TRIGGER session_deleted AFTER DELETE ON sessions
    FOR EACH ROW WHEN (OLD.revoked IS NULL AND OLD.expires > now()) EXECUTE FUNCTION session_revoked();

-- A disabled user, a new password, another role or other teams to lead end the sessions that were begun before.
-- (A password that is only hashed anew is not a new one: who does that sets cti.rehash in the transaction.)
CREATE FUNCTION end_sessions_of(who text) RETURNS void LANGUAGE sql AS $$
    UPDATE sessions SET revoked = now(), why = 'user changed' WHERE login = who AND revoked IS NULL
$$;

CREATE FUNCTION user_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM end_sessions_of(OLD.login);
    RETURN NULL;
END
$$;
CREATE TRIGGER user_changed AFTER UPDATE ON users
    FOR EACH ROW WHEN (NEW.disabled AND NOT OLD.disabled
                       OR NEW.role IS DISTINCT FROM OLD.role
                       OR NEW.password_hash IS DISTINCT FROM OLD.password_hash
                          AND current_setting('cti.rehash', true) IS DISTINCT FROM 'on')
    EXECUTE FUNCTION user_changed();

CREATE FUNCTION supervision_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.supervisor THEN
        PERFORM end_sessions_of(OLD.login);
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.supervisor THEN
        PERFORM end_sessions_of(NEW.login);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER supervision_changed AFTER INSERT OR UPDATE OR DELETE ON team_members
    FOR EACH ROW EXECUTE FUNCTION supervision_changed();
