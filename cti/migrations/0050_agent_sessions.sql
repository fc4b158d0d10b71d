-- Who made an agent's state and why, who asked for what, and the work after calls: kept over a restart of the server.

ALTER TABLE agent_sessions
    ADD COLUMN shown_reason text,
    ADD COLUMN call         text,
    ADD COLUMN by           text,
    ADD COLUMN why          text,
    ADD COLUMN asked_by     text,
    ADD COLUMN log_off_by   text,
    ADD COLUMN wrap_call    text,
    ADD COLUMN wrap_queue   text,
    ADD COLUMN owed         jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN worked       jsonb NOT NULL DEFAULT '{}';

COMMENT ON COLUMN agent_sessions.owed IS 'calls of which the agent has to say how they ended: {call: queue}';
COMMENT ON COLUMN agent_sessions.worked IS 'queue calls still to be wrapped up: {call: [queue, disposed]}';
