-- The ledger of abandoned calls: sums of hours that are over, so that a window of 30 days is read at once.

CREATE INDEX attempts_answered ON attempts (campaign_id, answered) INCLUDE (outcome, amd, waited, connected)
    WHERE answered IS NOT NULL;

CREATE TABLE abandonment_hours (
    campaign_id bigint NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    live integer NOT NULL,
    abandoned integer NOT NULL,
    late integer NOT NULL,
    machines integer NOT NULL,
    PRIMARY KEY (campaign_id, hour)
);

COMMENT ON COLUMN abandonment_hours.live IS 'answers by a person';
COMMENT ON COLUMN abandonment_hours.late IS 'connected to an agent, but after the wait that the law gives: they count as abandoned';

CREATE TABLE abandonment_sums (
    campaign_id bigint PRIMARY KEY REFERENCES campaigns ON DELETE CASCADE,
    until timestamptz NOT NULL
);

COMMENT ON TABLE abandonment_sums IS 'up to when a campaign''s hours are summed: no attempt answered before that is still open';

-- "Why was it (not) called" finds a contact by any of its numbers.
CREATE INDEX list_contacts_other_numbers ON list_contacts USING gin (other_numbers) WHERE other_numbers <> '{}';
