-- In which unit (department) somebody works, and as what: call lists may be assigned by either.

ALTER TABLE users
    ADD COLUMN unit text NOT NULL DEFAULT '' CHECK (length(unit) <= 64),
    ADD COLUMN position text NOT NULL DEFAULT '' CHECK (length(position) <= 64);

COMMENT ON COLUMN users.unit IS 'the house''s own name for it; "": none';
