-- How long a talk was is known if its end was seen: not of a call that a server found gone when it came back. Of such talks
-- nothing is summed up, and nothing learnt.

ALTER TABLE attempts ADD COLUMN end_unseen boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN attempts.end_unseen IS 'the call was found gone: `ended` is when that was noticed';

UPDATE attempts SET end_unseen = true WHERE why IN ('ended while no server watched', 'its end was not seen');

-- Sums are made anew.
TRUNCATE campaign_sums, campaign_sums_again;
UPDATE campaign_sums_position SET upto = '-infinity';

ALTER TABLE campaign_sums ADD COLUMN talks integer NOT NULL;
COMMENT ON COLUMN campaign_sums.talks IS 'connected calls that are over and of which it is known when: talk_ms is theirs';

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
       CASE WHEN connected IS NOT NULL AND ended IS NOT NULL AND NOT end_unseen
            THEN greatest(round(1000 * extract(epoch FROM ended - connected)), 0) ELSE 0 END::double precision AS talk_ms,
       counts_as IS NOT DISTINCT FROM 'late' AS late,
       connected IS NOT NULL AND ended IS NOT NULL AND NOT end_unseen AS talked
  FROM attempts;

CREATE OR REPLACE FUNCTION campaign_sums_of(campaign bigint, since timestamptz, until timestamptz, agents boolean DEFAULT false)
RETURNS SETOF campaign_sums LANGUAGE sql STABLE AS $$
    SELECT s.campaign_id, s.slot, s.list_id, s.number_of, CASE WHEN agents THEN s.agent ELSE '' END, s.outcome, s.disposition,
           count(*)::integer, (count(*) FILTER (WHERE s.answered))::integer, (count(*) FILTER (WHERE s.live))::integer,
           (count(*) FILTER (WHERE s.connected))::integer, (count(*) FILTER (WHERE s.machine))::integer,
           (count(*) FILTER (WHERE s.opted_out))::integer, (count(*) FILTER (WHERE s.abandoned))::integer,
           sum(s.ring_ms), sum(s.answer_ms), sum(s.wait_ms), sum(s.talk_ms), sum((s.talk_ms / 1000.0::double precision) ^ 2),
           (count(*) FILTER (WHERE s.late))::integer, (count(*) FILTER (WHERE s.talked))::integer
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
        talk_ms = excluded.talk_ms, talk_squares = excluded.talk_squares, talks = excluded.talks;
    new := least(target, old + interval '6 hours');
    IF new > old THEN
        INSERT INTO campaign_sums
        SELECT s.* FROM campaigns c, LATERAL campaign_sums_of(c.id, old, new) AS s;
        UPDATE campaign_sums_position SET upto = new;
    END IF;
    RETURN new < target;
END $$;
