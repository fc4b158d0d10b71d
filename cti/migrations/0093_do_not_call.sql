-- Who is not to be called, by our own lists and by national registers, and who has agreed to be called.
--
-- Numbers are E.164 without the +, as bigint.

CREATE TABLE do_not_call (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint NOT NULL CHECK (number BETWEEN 10000 AND 999999999999999),
    scope text NOT NULL CHECK (scope IN ('everywhere', 'company', 'campaign')),
    company text NOT NULL DEFAULT '' CHECK (length(company) <= 100),
    campaign_id bigint REFERENCES campaigns,
    reason text NOT NULL DEFAULT '' CHECK (length(reason) <= 300),
    call text NOT NULL DEFAULT '' CHECK (length(call) <= 200),
    added timestamptz NOT NULL DEFAULT now(),
    added_by text NOT NULL,
    expires timestamptz,
    removed timestamptz,
    removed_by text,
    removed_why text NOT NULL DEFAULT '' CHECK (length(removed_why) <= 300),
    CHECK ((scope = 'company') = (company <> '')),
    CHECK ((scope = 'campaign') = (campaign_id IS NOT NULL)),
    CHECK ((removed IS NULL) = (removed_by IS NULL))
);

CREATE UNIQUE INDEX do_not_call_live ON do_not_call (number, scope, company, campaign_id) NULLS NOT DISTINCT
    WHERE removed IS NULL;
CREATE INDEX do_not_call_of_number ON do_not_call (number);

COMMENT ON TABLE do_not_call IS 'our own lists; what was removed stays, to tell what held when';
COMMENT ON COLUMN do_not_call.call IS 'the call in which the customer asked for it';

CREATE TABLE do_not_call_editions (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    register text NOT NULL CHECK (register ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    country text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    edition date NOT NULL,
    state text NOT NULL DEFAULT 'loading' CHECK (state IN ('loading', 'active', 'replaced')),
    numbers bigint NOT NULL DEFAULT 0,
    refused bigint NOT NULL DEFAULT 0,
    loaded timestamptz NOT NULL DEFAULT now(),
    loaded_by text NOT NULL
);

CREATE UNIQUE INDEX do_not_call_active ON do_not_call_editions (register) WHERE state = 'active';

-- A register's numbers by ten thousands: 200 million of them are some 600,000 rows, not 200 million. No foreign key: an
-- edition's rows are written before it is active and deleted after it was replaced.
CREATE TABLE do_not_call_blocks (
    edition integer NOT NULL,
    block bigint NOT NULL,
    few smallint[],
    bits bytea CHECK (length(bits) = 1250),
    PRIMARY KEY (edition, block),
    CHECK ((few IS NULL) <> (bits IS NULL))
);

COMMENT ON TABLE do_not_call_blocks IS 'number / 10000, and which of its last four digits are listed: one by one, or as bits where there are many';

CREATE TABLE consents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint CHECK (number BETWEEN 10000 AND 999999999999999),
    person text NOT NULL DEFAULT '' CHECK (length(person) <= 80),
    channel text NOT NULL CHECK (channel IN ('call', 'sms', 'email', 'chat', 'letter')),
    purpose text NOT NULL DEFAULT '' CHECK (length(purpose) <= 60),
    given boolean NOT NULL,
    source text NOT NULL CHECK (length(source) BETWEEN 1 AND 200),
    evidence text NOT NULL DEFAULT '' CHECK (length(evidence) <= 2000),
    at timestamptz NOT NULL,
    noted timestamptz NOT NULL DEFAULT now(),
    noted_by text NOT NULL,
    CHECK (number IS NOT NULL OR person <> ''),
    CHECK (NOT given OR purpose <> '')
);

-- The same word is kept once, however often a file with it is imported.
CREATE UNIQUE INDEX consents_once ON consents (number, person, channel, purpose, given, at) NULLS NOT DISTINCT;
CREATE INDEX consents_of_person ON consents (person, channel, at DESC) WHERE person <> '';

COMMENT ON TABLE consents IS 'each word given or withdrawn, never changed: the last one counts';
COMMENT ON COLUMN consents.purpose IS '"" withdraws for every purpose';
COMMENT ON COLUMN consents.number IS 'null: for all numbers of the person';
