-- What detection of answering machines found and how long it took, and what became of the message left on a machine.

ALTER TABLE attempts
    ADD COLUMN amd_cause text CHECK (length(amd_cause) <= 60),
    ADD COLUMN amd_s real,
    ADD COLUMN detail text NOT NULL DEFAULT '' CHECK (length(detail) <= 40);

COMMENT ON COLUMN attempts.amd_cause IS 'why Asterisk decided so, as it says it: LONGGREETING-1500-1500, TOOLONG-5000';
COMMENT ON COLUMN attempts.amd_s IS 'seconds from the answer to the decision';
COMMENT ON COLUMN attempts.detail IS 'of a machine: what became of the message for it; dialer/attempts.py names them';

CREATE INDEX attempts_detected ON attempts (campaign_id, committed) INCLUDE (amd, amd_cause, amd_s, detail, outcome)
    WHERE answered IS NOT NULL;
