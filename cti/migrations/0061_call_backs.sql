-- Promises to call a customer back at a time. Not the callback of a queue, which keeps a place there and is Asterisk's.

CREATE TABLE call_backs (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number     text        NOT NULL CHECK (number ~ '^\+[0-9]{3,20}$'),
    name       text        NOT NULL DEFAULT '' CHECK (length(name) <= 200),
    account    bigint      REFERENCES accounts ON DELETE SET NULL,
    due        timestamptz NOT NULL,
    zone       text        NOT NULL CHECK (length(zone) BETWEEN 1 AND 64),
    agent      text        CHECK (length(agent) BETWEEN 1 AND 64),
    team       text        CHECK (length(team) BETWEEN 1 AND 64),
    for_team   boolean     NOT NULL,
    note       text        NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    call       text        NOT NULL,
    created    timestamptz NOT NULL,
    created_by text        NOT NULL,
    state      text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'taken', 'done', 'cancelled')),
    taken_by   text        CHECK ((taken_by IS NOT NULL) = (state = 'taken')),
    taken      timestamptz,
    tries      integer     NOT NULL DEFAULT 0,
    reminded   timestamptz,
    ended      timestamptz,
    ended_by   text,
    outcome    text        CHECK (length(outcome) <= 200),
    version    integer     NOT NULL DEFAULT 1,
    CHECK (agent IS NOT NULL OR (team IS NOT NULL AND for_team))
);

CREATE INDEX call_backs_live ON call_backs (due) WHERE state IN ('open', 'taken');
CREATE INDEX call_backs_of_account ON call_backs (account) WHERE account IS NOT NULL;

COMMENT ON COLUMN call_backs.zone IS 'the customer''s time zone, in which the time was meant';
COMMENT ON COLUMN call_backs.agent IS 'who has promised it for themselves; null: any of the team';
COMMENT ON COLUMN call_backs.for_team IS 'the team may take it: promised so, or its agent was away when it was due';
COMMENT ON TABLE call_backs IS 'logins without a foreign key to users: who leaves leaves the promise';
