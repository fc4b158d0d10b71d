-- Consent to recorded calls is consent to exactly that; and companies and purposes are the same however their letters are
-- written: who asked "Acme" not to call is not called for "ACME" either.

ALTER TABLE consents DROP CONSTRAINT consents_channel_check,
    ADD CONSTRAINT consents_channel_check CHECK (channel IN ('call', 'recorded', 'sms', 'email', 'chat', 'letter'));

CREATE FUNCTION law_name(name text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT lower(btrim(coalesce(name, '')))
$$;

COMMENT ON FUNCTION law_name IS 'a company or a purpose as the law compares it';
