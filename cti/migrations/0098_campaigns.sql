-- Campaigns: when the server starts and ends them by itself, which dispositions count as a success, and sums of attempts.
--
-- Sums are kept per quarter of an hour (UTC: a part of every hour of every zone of today) in which the call was placed, and
-- only of quarters that ended half an hour ago; what is younger, and what was changed later (a disposition that came
-- afterwards), is added up from the attempts when it is asked for. So what is read is always exact, whatever has been
-- rolled up so far.

CREATE TABLE campaign_schedules (
    campaign_id bigint PRIMARY KEY REFERENCES campaigns ON DELETE CASCADE,
    schedule jsonb NOT NULL,
    done timestamptz NOT NULL DEFAULT now(),
    changed timestamptz NOT NULL DEFAULT now(),
    changed_by text NOT NULL
);

COMMENT ON COLUMN campaign_schedules.done IS 'steps up to here were carried out, or were over when it was written';

CREATE TABLE campaign_conversions (
    campaign_id bigint NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    disposition text NOT NULL CHECK (length(disposition) BETWEEN 1 AND 100),
    PRIMARY KEY (campaign_id, disposition)
);

COMMENT ON TABLE campaign_conversions IS 'what counts as a success; counted when it is asked for, so it may change';

CREATE TABLE campaign_sums (
    campaign_id  bigint      NOT NULL,
    slot         timestamptz NOT NULL,
    list_id      bigint      NOT NULL,
    number_of    integer     NOT NULL,
    agent        text        NOT NULL,
    outcome      text        NOT NULL,
    disposition  text        NOT NULL,
    attempts     integer      NOT NULL,
    answered     integer      NOT NULL,
    live         integer      NOT NULL,
    connected    integer      NOT NULL,
    machines     integer      NOT NULL,
    opted_out    integer      NOT NULL,
    abandoned    integer      NOT NULL,
    ring_ms      double precision      NOT NULL,
    answer_ms    double precision      NOT NULL,
    wait_ms      double precision      NOT NULL,
    talk_ms      double precision      NOT NULL,
    talk_squares double precision NOT NULL,
    PRIMARY KEY (campaign_id, slot, list_id, number_of, agent, outcome, disposition)
);

COMMENT ON TABLE campaign_sums IS 'agent is always ""; list_id 0, disposition "": none; outcome "": not over yet; number_of 10: the tenth and later';
-- Milliseconds are whole; as doubles they are exact to 2^53 and, unlike bigint, summed without numeric.
COMMENT ON COLUMN campaign_sums.answer_ms IS 'from dialing to the answer, of those answered; ring_ms of all that rang';
COMMENT ON COLUMN campaign_sums.talk_squares IS 'sum of squared seconds of talk';

CREATE TABLE campaign_sums_position (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    upto     timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO campaign_sums_position DEFAULT VALUES;

COMMENT ON COLUMN campaign_sums_position.upto IS 'attempts placed before are in the sums, but for those in campaign_sums_again';

CREATE TABLE campaign_sums_again (
    campaign_id bigint      NOT NULL,
    slot        timestamptz NOT NULL
);

CREATE FUNCTION campaign_slot(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT date_bin('15 minutes', at, timestamptz '2020-01-01 00:00:00+00') $$;

-- Attempts that change after their quarter may have been rolled up. Ten minutes lie between what is not noted here and what
-- is rolled up, so that no transaction that is still open falls between the two.
CREATE FUNCTION campaign_sums_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO campaign_sums_again VALUES (NEW.campaign_id, campaign_slot(NEW.committed));
    RETURN NULL;
END $$;

CREATE TRIGGER campaign_sums_note AFTER INSERT OR UPDATE ON attempts FOR EACH ROW
    WHEN (NEW.committed < now() - interval '20 minutes') EXECUTE FUNCTION campaign_sums_note();

-- What attempts add to the sums: the one definition of every figure.
CREATE VIEW campaign_shares AS
SELECT campaign_id,
       committed,
       campaign_slot(committed) AS slot,
       coalesce(list_id, 0) AS list_id,
       least(number_of, 10) AS number_of,
       coalesce(agent, '') AS agent,
       coalesce(outcome, '') AS outcome,
       coalesce(disposition, '') AS disposition,
       answered IS NOT NULL AS answered,
       answered IS NOT NULL AND (amd IS NULL OR lower(amd) NOT IN ('machine', 'fax'))
           AND (outcome IS NULL OR outcome NOT IN ('machine', 'fax')) AS live,
       connected IS NOT NULL AS connected,
       lower(amd) IS NOT DISTINCT FROM 'machine' OR outcome IS NOT DISTINCT FROM 'machine' AS machine,
       opted_out,
       outcome IS NOT DISTINCT FROM 'abandoned' AS abandoned,
       greatest(coalesce(round(1000 * extract(epoch FROM coalesce(answered, ended) - coalesce(ringing, dialed))), 0), 0)::double precision
           AS ring_ms,
       greatest(coalesce(round(1000 * extract(epoch FROM answered - dialed)), 0), 0)::double precision AS answer_ms,
       greatest(coalesce(round(1000 * coalesce(waited::numeric, extract(epoch FROM connected - answered))), 0), 0)::double precision
           AS wait_ms,
       CASE WHEN connected IS NOT NULL AND ended IS NOT NULL
            THEN greatest(round(1000 * extract(epoch FROM ended - connected)), 0) ELSE 0 END::double precision AS talk_ms
  FROM attempts;

-- The sums of some attempts of one campaign, as they are kept.
CREATE FUNCTION campaign_sums_of(campaign bigint, since timestamptz, until timestamptz, agents boolean DEFAULT false)
RETURNS SETOF campaign_sums LANGUAGE sql STABLE AS $$
    SELECT s.campaign_id, s.slot, s.list_id, s.number_of, CASE WHEN agents THEN s.agent ELSE '' END, s.outcome, s.disposition,
           count(*)::integer, (count(*) FILTER (WHERE s.answered))::integer, (count(*) FILTER (WHERE s.live))::integer,
           (count(*) FILTER (WHERE s.connected))::integer, (count(*) FILTER (WHERE s.machine))::integer,
           (count(*) FILTER (WHERE s.opted_out))::integer, (count(*) FILTER (WHERE s.abandoned))::integer,
           sum(s.ring_ms), sum(s.answer_ms), sum(s.wait_ms), sum(s.talk_ms), sum((s.talk_ms / 1000.0::double precision) ^ 2)
      FROM campaign_shares s
     WHERE s.campaign_id = campaign AND s.committed >= since AND s.committed < until
     GROUP BY 1, 2, 3, 4, 5, 6, 7
$$;

-- What these campaigns came to in quarters from `since` to before `until`, whatever of it has been rolled up. Sums are not kept
-- by agent (there would be nearly as many as calls): with `agents` everything is added up from the attempts.
CREATE FUNCTION campaign_read(campaigns bigint[], since timestamptz, until timestamptz, agents boolean DEFAULT false)
RETURNS SETOF campaign_sums LANGUAGE sql STABLE AS $$
    WITH position AS MATERIALIZED (SELECT upto FROM campaign_sums_position),
         again AS MATERIALIZED (SELECT DISTINCT a.campaign_id, a.slot FROM campaign_sums_again a, position
                                 WHERE NOT agents AND a.campaign_id = ANY (campaigns) AND a.slot >= since
                                   AND a.slot < least(until, upto))
    SELECT s.* FROM campaign_sums s
     WHERE NOT agents AND s.campaign_id = ANY (campaigns) AND s.slot >= since AND s.slot < until
       AND NOT EXISTS (SELECT FROM again a WHERE a.campaign_id = s.campaign_id AND a.slot = s.slot)
    UNION ALL
    SELECT s.* FROM unnest(campaigns) AS c (id), position,
                    LATERAL campaign_sums_of(c.id, CASE WHEN agents THEN since ELSE greatest(since, upto) END, until, agents)
                    AS s
    UNION ALL
    SELECT s.* FROM again a, LATERAL campaign_sums_of(a.campaign_id, a.slot, a.slot + interval '15 minutes') AS s
$$;

-- Rolls up what ended half an hour ago, a quarter of a day at most, and what has changed since it was rolled up; says
-- whether there is more. Two at once: the second does nothing.
CREATE FUNCTION campaign_roll_up(now timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    old timestamptz;
    new timestamptz;
    target timestamptz := campaign_slot(now - interval '30 minutes');
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'0C71F098'::integer) THEN
        RETURN false;
    END IF;
    SELECT upto INTO old FROM campaign_sums_position FOR UPDATE;
    IF old = '-infinity' THEN
        SELECT coalesce(campaign_slot(min(committed)), target) INTO old FROM attempts;
    END IF;
    WITH gone AS (DELETE FROM campaign_sums_again RETURNING campaign_id, slot),
         again AS (SELECT DISTINCT campaign_id, slot FROM gone WHERE slot < old),
         removed AS (DELETE FROM campaign_sums s USING again a WHERE s.campaign_id = a.campaign_id AND s.slot = a.slot
                     RETURNING 1)
    INSERT INTO campaign_sums
    SELECT s.* FROM again a, LATERAL campaign_sums_of(a.campaign_id, a.slot, a.slot + interval '15 minutes') AS s
    ON CONFLICT (campaign_id, slot, list_id, number_of, agent, outcome, disposition) DO UPDATE SET
        attempts = excluded.attempts, answered = excluded.answered, live = excluded.live, connected = excluded.connected,
        machines = excluded.machines, opted_out = excluded.opted_out, abandoned = excluded.abandoned,
        ring_ms = excluded.ring_ms, answer_ms = excluded.answer_ms, wait_ms = excluded.wait_ms,
        talk_ms = excluded.talk_ms, talk_squares = excluded.talk_squares;
    new := least(target, old + interval '6 hours');
    IF new > old THEN
        INSERT INTO campaign_sums
        SELECT s.* FROM campaigns c, LATERAL campaign_sums_of(c.id, old, new) AS s;
        UPDATE campaign_sums_position SET upto = new;
    END IF;
    RETURN new < target;
END $$;
