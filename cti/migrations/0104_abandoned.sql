-- How the law counts an answer is decided once (dialer/attempts.py: CountsAs) and written with the attempt; the ledger, figures,
-- evidence and pacing count by it.

ALTER TABLE attempts ADD COLUMN counts_as text CHECK (counts_as IN ('in_time', 'early', 'late', 'nobody', 'machine'));

COMMENT ON COLUMN attempts.counts_as IS 'how the law counts its answer; null: nobody has answered, or it is not decided yet';

CREATE FUNCTION live_answer(counts_as text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT counts_as IN ('in_time', 'early', 'late', 'nobody') $$;

CREATE FUNCTION lost_answer(counts_as text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT counts_as IN ('late', 'nobody') $$;

COMMENT ON FUNCTION lost_answer IS 'an abandoned call: connected too late, or not at all; as LOST in dialer/attempts.py';

UPDATE attempts a
   SET counts_as = CASE WHEN a.outcome = 'machine' THEN 'machine'
                        WHEN a.connected IS NOT NULL AND a.waited > coalesce((c.settings ->> 'answer_wait_s')::real, 2) THEN 'late'
                        WHEN a.connected IS NOT NULL OR (a.mode = 'agentless' AND a.message_played IS NOT NULL) THEN 'in_time'
                        WHEN a.outcome = 'answered' THEN 'early'
                        ELSE 'nobody' END
  FROM campaigns c
 WHERE c.id = a.campaign_id AND a.answered IS NOT NULL AND a.outcome IS NOT NULL AND a.outcome <> 'fax';

DROP INDEX attempts_answered;
CREATE INDEX attempts_answered ON attempts (campaign_id, answered) INCLUDE (counts_as) WHERE answered IS NOT NULL;

-- Sums are made anew.
TRUNCATE abandonment_hours, abandonment_sums, campaign_sums, campaign_sums_again;
UPDATE campaign_sums_position SET upto = '-infinity';

COMMENT ON COLUMN abandonment_hours.abandoned IS 'connected too late, or not at all';
COMMENT ON COLUMN abandonment_hours.late IS 'of them those who came to an agent, but after the wait that the law gives';

ALTER TABLE campaign_sums ADD COLUMN late integer NOT NULL;
COMMENT ON COLUMN campaign_sums.late IS 'of the abandoned those who came to an agent, but after the wait that the law gives';

CREATE OR REPLACE VIEW campaign_shares AS
SELECT campaign_id,
       committed,
       campaign_slot(committed) AS slot,
       coalesce(list_id, 0) AS list_id,
       least(number_of, 10) AS number_of,
       coalesce(agent, '') AS agent,
       coalesce(outcome, '') AS outcome,
       coalesce(disposition, '') AS disposition,
       answered IS NOT NULL AS answered,
       live_answer(counts_as) AS live,
       connected IS NOT NULL AS connected,
       counts_as IS NOT DISTINCT FROM 'machine' AS machine,
       opted_out,
       lost_answer(counts_as) AS abandoned,
       greatest(coalesce(round(1000 * extract(epoch FROM coalesce(answered, ended) - coalesce(ringing, dialed))), 0), 0)::double precision
           AS ring_ms,
       greatest(coalesce(round(1000 * extract(epoch FROM answered - dialed)), 0), 0)::double precision AS answer_ms,
       greatest(coalesce(round(1000 * coalesce(waited::numeric, extract(epoch FROM connected - answered))), 0), 0)::double precision
           AS wait_ms,
       CASE WHEN connected IS NOT NULL AND ended IS NOT NULL
            THEN greatest(round(1000 * extract(epoch FROM ended - connected)), 0) ELSE 0 END::double precision AS talk_ms,
       counts_as IS NOT DISTINCT FROM 'late' AS late
  FROM attempts;

CREATE OR REPLACE FUNCTION campaign_sums_of(campaign bigint, since timestamptz, until timestamptz, agents boolean DEFAULT false)
RETURNS SETOF campaign_sums LANGUAGE sql STABLE AS $$
    SELECT s.campaign_id, s.slot, s.list_id, s.number_of, CASE WHEN agents THEN s.agent ELSE '' END, s.outcome, s.disposition,
           count(*)::integer, (count(*) FILTER (WHERE s.answered))::integer, (count(*) FILTER (WHERE s.live))::integer,
           (count(*) FILTER (WHERE s.connected))::integer, (count(*) FILTER (WHERE s.machine))::integer,
           (count(*) FILTER (WHERE s.opted_out))::integer, (count(*) FILTER (WHERE s.abandoned))::integer,
           sum(s.ring_ms), sum(s.answer_ms), sum(s.wait_ms), sum(s.talk_ms), sum((s.talk_ms / 1000.0::double precision) ^ 2),
           (count(*) FILTER (WHERE s.late))::integer
      FROM campaign_shares s
     WHERE s.campaign_id = campaign AND s.committed >= since AND s.committed < until
     GROUP BY 1, 2, 3, 4, 5, 6, 7
$$;

CREATE OR REPLACE FUNCTION campaign_roll_up(now timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
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
        machines = excluded.machines, opted_out = excluded.opted_out, abandoned = excluded.abandoned, late = excluded.late,
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
