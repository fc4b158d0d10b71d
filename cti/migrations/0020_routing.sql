-- Routing rules: every version that was ever active, as it was written. The highest is the active one; a former one is
-- made active by being written again. Rows are only ever added.

CREATE TABLE routing_versions (
    version integer     PRIMARY KEY CHECK (version > 0),
    made    timestamptz NOT NULL DEFAULT now(),
    made_by text        NOT NULL,
    note    text        NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    rules   jsonb       NOT NULL
);

COMMENT ON TABLE routing_versions IS 'routing rules, the highest version is active; checked as a whole before they come in';
