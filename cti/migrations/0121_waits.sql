-- Of an answered call how long the person might wait for an agent, and from when that counted; of a wrap-up how much its
-- agent has added to it, which counts on over a restart of the server.

ALTER TABLE attempts
    ADD COLUMN wait_s real,
    ADD COLUMN wait_from text CHECK (wait_from IN ('answer', 'greeting'));

COMMENT ON COLUMN attempts.waited IS 'seconds from the beginning of the wait to the agent, or to its end';
COMMENT ON COLUMN attempts.wait_s IS 'how long the person might wait by law and settings; null: no answer, or before it was kept';
COMMENT ON COLUMN attempts.wait_from IS 'from when both count: the answer, or the end of the greeting';

ALTER TABLE agent_sessions ADD COLUMN wrap_extended float8 NOT NULL DEFAULT 0;

COMMENT ON COLUMN agent_sessions.wrap_extended IS 'seconds that the agent has added to the wrap-up under way';
