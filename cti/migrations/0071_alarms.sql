-- Alarms that are raised, so that they outlast a restart of the server: one row each, gone when it is over.

CREATE TABLE alarms (
    id              text             PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    rule            integer          NOT NULL,
    rule_version    integer          NOT NULL,
    agent           text,
    pbx             text,
    value           double precision NOT NULL,
    since           timestamptz      NOT NULL,
    acknowledged_by text,
    acknowledged    timestamptz
);

COMMENT ON TABLE alarms IS 'no foreign key: an alarm whose rule has gone is cleared when the server comes up';
