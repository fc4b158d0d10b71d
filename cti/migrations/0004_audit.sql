-- Who did what to whom. Rows are added, and neither changed nor deleted: a trigger refuses it.
-- The one way out is age: SELECT audit_expire(before), which refuses days within the last 90.

CREATE TABLE audit (
    id      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT now(),
    actor   text        NOT NULL,
    via     text        NOT NULL,
    action  text        NOT NULL,
    target  text        NOT NULL DEFAULT '',
    detail  jsonb       NOT NULL DEFAULT '{}',
    address text
);
CREATE INDEX audit_actor ON audit (actor, id);
CREATE INDEX audit_action ON audit (action, id);
CREATE INDEX audit_target ON audit (target, id);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('cti.audit_expire', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit trail is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_row BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_all BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

CREATE FUNCTION audit_expire(before timestamptz) RETURNS bigint LANGUAGE plpgsql SET cti.audit_expire = 'on' AS $$
DECLARE
    gone bigint;
BEGIN
    IF before > now() - interval '90 days' THEN
        RAISE EXCEPTION 'the audit trail of the last 90 days is kept' USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM audit a WHERE a.at < before;
    GET DIAGNOSTICS gone = ROW_COUNT;
    INSERT INTO audit (actor, via, action, target, detail)
    VALUES (session_user, 'system', 'audit.expired', to_char(before, 'YYYY-MM-DD'), jsonb_build_object('rows', gone));
    RETURN gone;
END
$$;
