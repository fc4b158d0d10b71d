-- Who is called back by somebody: no campaign calls them meanwhile. Kept beside the promises, so that a claim looks up a number.

CREATE TABLE promised_numbers (
    key       text        NOT NULL,
    call_back bigint      NOT NULL REFERENCES call_backs ON DELETE CASCADE,
    due       timestamptz NOT NULL,
    keeper    text        NOT NULL,
    made      timestamptz NOT NULL,
    PRIMARY KEY (key, call_back)
);

CREATE INDEX promised_numbers_of ON promised_numbers (call_back);

COMMENT ON TABLE promised_numbers IS 'of promises that are open or taken: the number, that of the campaign''s call it was made in,
and its person (`person ` and who)';

CREATE FUNCTION promised_numbers_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM promised_numbers WHERE call_back = NEW.id;
    IF NEW.state IN ('open', 'taken') THEN
        INSERT INTO promised_numbers
        SELECT DISTINCT k.key, NEW.id, NEW.due, coalesce(NEW.agent, 'team ' || NEW.team), NEW.created
          FROM (SELECT NEW.number AS key
                UNION ALL
                SELECT unnest(CASE WHEN a.person = '' THEN ARRAY[a.e164] ELSE ARRAY[a.e164, 'person ' || a.person] END)
                  FROM attempts a WHERE a.id = split_part(NEW.call, ':', 2) OR a.call = NEW.call) AS k;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER promised_numbers_kept AFTER INSERT OR UPDATE OF state, due ON call_backs FOR EACH ROW
    EXECUTE FUNCTION promised_numbers_kept();

UPDATE call_backs SET state = state WHERE state IN ('open', 'taken');

COMMENT ON COLUMN attempts.call IS 'the call that an agent made for it: click to dial, or what was promised in it';
