-- Messages to agents, kept until each has read them, and agents' requests for help.

CREATE TABLE messages (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    sender      text        NOT NULL CHECK (length(sender) BETWEEN 1 AND 64),
    sender_name text        NOT NULL,
    team        text,
    text        text        NOT NULL CHECK (length(text) BETWEEN 1 AND 1000)
);

CREATE TABLE message_receipts (
    message bigint NOT NULL REFERENCES messages ON DELETE CASCADE,
    agent   text   NOT NULL CHECK (length(agent) BETWEEN 1 AND 64),
    read    timestamptz,
    PRIMARY KEY (message, agent)
);

CREATE INDEX message_receipts_unread ON message_receipts (agent, message) WHERE read IS NULL;

COMMENT ON TABLE message_receipts IS 'whom a message went to, and when they read it; no foreign key to users: who leaves leaves the mark';

CREATE TABLE help_requests (
    id       text        PRIMARY KEY,
    agent    text        NOT NULL CHECK (length(agent) BETWEEN 1 AND 64),
    call     text,
    text     text        NOT NULL CHECK (length(text) <= 500),
    since    timestamptz NOT NULL,
    taken_by text,
    taken    timestamptz,
    ended    timestamptz,
    ended_by text,
    outcome  text        CHECK (outcome IN ('closed', 'withdrawn', 'logged_off'))
);

CREATE UNIQUE INDEX help_requests_open ON help_requests (agent) WHERE ended IS NULL;
