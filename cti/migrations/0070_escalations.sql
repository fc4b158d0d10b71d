-- Calls that agents have handed up to the second level: what the interaction shows of it.

CREATE TABLE escalations (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call       text        NOT NULL CHECK (length(call) BETWEEN 3 AND 200),
    at         timestamptz NOT NULL,
    agent      text        NOT NULL,
    queue      text        NOT NULL,
    from_queue text,
    reason     text        NOT NULL CHECK (length(reason) <= 200),
    note       text        NOT NULL DEFAULT '' CHECK (length(note) <= 1000),
    priority   integer     NOT NULL DEFAULT 0,
    waited     real        NOT NULL DEFAULT 0,
    UNIQUE (call, at)
);

COMMENT ON TABLE escalations IS 'no foreign key: the interaction of a call is written a moment later';
COMMENT ON COLUMN escalations.waited IS 'seconds that the caller had waited in queues by then';
