-- When supervisors are to be alarmed. Which columns a kind needs is checked before a rule comes in.

CREATE TABLE alarm_rules (
    id          integer     GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version     integer     NOT NULL DEFAULT 1,
    name        text        NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
    kind        text        NOT NULL,
    queue       text,
    team        text,
    pbx         text,
    reason      text,
    threshold   double precision NOT NULL CHECK (threshold >= 0),
    raise_after double precision NOT NULL CHECK (raise_after BETWEEN 0 AND 3600),
    clear_after double precision NOT NULL CHECK (clear_after BETWEEN 0 AND 3600),
    margin      double precision NOT NULL CHECK (margin >= 0),
    enabled     boolean     NOT NULL,
    changed     timestamptz NOT NULL DEFAULT now(),
    changed_by  text        NOT NULL
);
