-- Who paces a campaign, which number of a contact is next, and no number or person in two calls at once.

CREATE TABLE campaign_leases (
    campaign_id bigint PRIMARY KEY REFERENCES campaigns ON DELETE CASCADE,
    owner text NOT NULL,
    token bigint NOT NULL DEFAULT 1,
    until timestamptz NOT NULL
);

COMMENT ON TABLE campaign_leases IS 'one server paces a campaign: who, and until when. token rises with each new holder: a claim
with an older one fails';

ALTER TABLE list_contacts
    ADD COLUMN turn smallint NOT NULL DEFAULT 0 CHECK (turn >= 0),
    ADD COLUMN dead_numbers text[] NOT NULL DEFAULT '{}';

COMMENT ON COLUMN list_contacts.turn IS 'which of its numbers that are not dead is dialed next, counted round';
COMMENT ON COLUMN list_contacts.dead_numbers IS 'found to be no number, or a fax';

CREATE UNIQUE INDEX attempts_one_call_a_number ON attempts (e164) WHERE state <> 'ended';
CREATE UNIQUE INDEX attempts_one_call_a_person ON attempts (person) WHERE state <> 'ended' AND person <> '';
CREATE INDEX attempts_recent ON attempts (campaign_id, ended DESC) WHERE state = 'ended';
