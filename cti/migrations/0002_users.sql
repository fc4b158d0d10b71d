-- Who works here, what they may do, which phone and queues are theirs; and what of an agent must survive a restart.

CREATE TABLE users (
    login         text        PRIMARY KEY CHECK (login ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    name          text        NOT NULL CHECK (name <> ''),
    role          text        NOT NULL CHECK (role IN ('agent', 'supervisor', 'admin')),
    password_hash text,
    disabled      boolean     NOT NULL DEFAULT false,
    created       timestamptz NOT NULL DEFAULT now()
);

COMMENT ON COLUMN users.password_hash IS 'argon2id; null: cannot log in with a password';

-- Failed log-ins in a row, of logins that exist and of those that do not alike (sha256 of the login), so that neither
-- the answer nor the work tells one from the other.
CREATE TABLE login_failures (
    login_hash   bytea       PRIMARY KEY,
    failed       integer     NOT NULL,
    last_failed  timestamptz NOT NULL DEFAULT now(),
    locked_until timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_failures_old ON login_failures (last_failed);

CREATE TABLE teams (
    id   text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    name text NOT NULL CHECK (name <> '')
);

CREATE TABLE team_members (
    team       text    NOT NULL REFERENCES teams ON DELETE CASCADE,
    login      text    NOT NULL REFERENCES users ON DELETE CASCADE,
    supervisor boolean NOT NULL DEFAULT false,
    PRIMARY KEY (team, login, supervisor)
);
CREATE INDEX team_members_login ON team_members (login);
CREATE UNIQUE INDEX team_members_one_team ON team_members (login) WHERE NOT supervisor;

COMMENT ON TABLE team_members IS 'an agent works in one team; a supervisor may lead several, and work in one';

CREATE TABLE team_queues (
    team  text NOT NULL REFERENCES teams ON DELETE CASCADE,
    queue text NOT NULL,
    PRIMARY KEY (team, queue)
);

COMMENT ON COLUMN team_queues.queue IS '<pbx>:<name>, as everywhere';

CREATE TABLE agent_interfaces (
    login     text NOT NULL REFERENCES users ON DELETE CASCADE,
    pbx       text NOT NULL,
    interface text NOT NULL CHECK (interface ~ '^[A-Za-z0-9]+/.+'),
    PRIMARY KEY (login, pbx),
    UNIQUE (pbx, interface)
);

CREATE TABLE agent_queues (
    login   text    NOT NULL REFERENCES users ON DELETE CASCADE,
    queue   text    NOT NULL,
    penalty integer NOT NULL DEFAULT 0 CHECK (penalty >= 0),
    PRIMARY KEY (login, queue)
);

CREATE TABLE api_keys (
    id         text        PRIMARY KEY,
    name       text        NOT NULL CHECK (name <> ''),
    key_hash   bytea       NOT NULL,
    role       text        NOT NULL CHECK (role IN ('integration', 'supervisor', 'admin')),
    teams      text[]      NOT NULL DEFAULT '{}',
    created    timestamptz NOT NULL DEFAULT now(),
    created_by text        NOT NULL,
    expires    timestamptz,
    revoked    timestamptz,
    last_used  timestamptz
);

COMMENT ON COLUMN api_keys.key_hash IS 'sha256 of 256 random bits; the key itself is shown once and kept nowhere';

-- What an agent was doing and had asked for, one row each, replaced with every change. state: the last known one.
CREATE TABLE agent_sessions (
    login         text        PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    logged_on     boolean     NOT NULL,
    ready         boolean     NOT NULL,
    reason        text,
    state         text,
    since         timestamptz NOT NULL,
    wrap_until    timestamptz,
    log_off_after boolean     NOT NULL DEFAULT false,
    changed       timestamptz NOT NULL DEFAULT now()
);
