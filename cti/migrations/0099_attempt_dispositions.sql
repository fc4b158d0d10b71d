-- What an agent says a call ended with is also its attempt's: in the same transaction, so that figures and evidence know it.

ALTER TABLE attempts ADD COLUMN call text;

COMMENT ON COLUMN attempts.call IS 'the call that an agent made for it (click to dial); of others the id says it';

CREATE INDEX attempts_by_call ON attempts (call) WHERE call IS NOT NULL;

CREATE FUNCTION attempt_disposition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF split_part(NEW.call, ':', 2) LIKE 'at-%' THEN
        UPDATE attempts SET disposition = NEW.disposition WHERE id = split_part(NEW.call, ':', 2);
    ELSE
        UPDATE attempts SET disposition = NEW.disposition WHERE call = NEW.call;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER attempt_disposition AFTER UPDATE OF disposition ON interactions FOR EACH ROW
    WHEN (NEW.disposition IS DISTINCT FROM OLD.disposition) EXECUTE FUNCTION attempt_disposition();
