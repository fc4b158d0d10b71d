-- Other work than calls from queues: callbacks that were promised, and what other modules bring.

CREATE TABLE work_items (
    id                   text        PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    kind                 text        NOT NULL,
    skill                text        NOT NULL,
    title                text        NOT NULL,
    source               text        NOT NULL,
    ref                  text        NOT NULL,
    created              timestamptz NOT NULL,
    since                timestamptz NOT NULL,
    state                text        NOT NULL CHECK (state IN ('waiting', 'accepted', 'done', 'cancelled', 'failed')),
    priority             integer     NOT NULL,
    level                integer,
    due                  timestamptz,
    number               text,
    account              bigint,
    data                 jsonb       NOT NULL DEFAULT '{}',
    agent                text,
    attempts             integer     NOT NULL DEFAULT 0,
    not_before           timestamptz,
    interrupted_by_calls boolean     NOT NULL DEFAULT false,
    rule                 text,
    call                 text,
    outcome              text,
    UNIQUE (source, ref)
);

CREATE INDEX work_items_open ON work_items (created) WHERE state IN ('waiting', 'accepted');
CREATE INDEX work_items_by_age ON work_items (since) WHERE state NOT IN ('waiting', 'accepted');

COMMENT ON TABLE work_items IS 'an offer to an agent is not kept: after a restart it waits again';
