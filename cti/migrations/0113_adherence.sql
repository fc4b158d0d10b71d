-- Adherence to reasons: how often agents were not ready for a reason, how often and how long beyond its limit. Summed up beside
-- the time in each state, in the quarter of an hour in which a stay began, went over, and was over. A stay is the time from a
-- fact of a new state or reason to the next; one that was only unknown for a while goes on as it was, with its `since`.

-- Reasons that have a limit, as the settings say.
CREATE TABLE figures_limits (
    reason text     PRIMARY KEY,
    lasts  interval NOT NULL CHECK (lasts > interval '0')
);

ALTER TABLE figures_states
    ADD COLUMN times       bigint NOT NULL DEFAULT 0,
    ADD COLUMN over_times  bigint NOT NULL DEFAULT 0,
    ADD COLUMN over_lasted bigint NOT NULL DEFAULT 0;
ALTER TABLE figures_state_days
    ADD COLUMN times       bigint NOT NULL DEFAULT 0,
    ADD COLUMN over_times  bigint NOT NULL DEFAULT 0,
    ADD COLUMN over_lasted bigint NOT NULL DEFAULT 0;

COMMENT ON COLUMN figures_states.over_lasted IS 'of `lasted`, microseconds beyond the limit; of not_ready only, as the other two';

-- The stay each agent is in as of figures_position; `seen`: until when it was known how they are before that.
CREATE TABLE figures_stay_now (
    agent  text        PRIMARY KEY,
    seq    bigint      NOT NULL,
    state  text        NOT NULL,
    reason text        NOT NULL,
    since  timestamptz NOT NULL,
    at     timestamptz NOT NULL,
    seen   timestamptz
);
INSERT INTO figures_stay_now SELECT agent, seq, state, reason, since, at, at FROM figures_agent_now;

CREATE FUNCTION figures_add_stays(
    after bigint, up_to bigint, range_first timestamptz, range_last timestamptz, going_on boolean
) RETURNS void LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    own_zone text;
BEGIN
    SELECT p.zone INTO own_zone FROM figures_position p;

    WITH changes AS (
        SELECT j.seq, j.at, j.at AS told, j.data ->> 'agent' AS agent, j.data ->> 'old' AS old, j.data ->> 'new' AS state,
               CASE j.data ->> 'new' WHEN 'not_ready' THEN coalesce(j.data ->> 'reason', '') ELSE '' END AS reason,
               (j.data ->> 'since')::timestamptz AS since, NULL::timestamptz AS seen
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'agent.state_changed'
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
        UNION ALL
        SELECT n.seq, n.at, NULL, n.agent, NULL, n.state, n.reason, n.since, n.seen
        FROM figures_stay_now n WHERE going_on
    ), clocked AS (
        SELECT c.*, max(c.at) OVER (PARTITION BY c.agent ORDER BY c.seq) AS began FROM changes c
    ), chained AS (
        SELECT c.seq, c.agent, c.told, c.began, c.state, c.reason, c.since, c.seen,
               lead(c.began) OVER w AS until, lead(c.old) OVER w AS left_as, lead(c.seq) OVER w AS left_seq
        FROM clocked c WINDOW w AS (PARTITION BY c.agent ORDER BY c.seq)
    ), known AS (
        -- Until when it is known: as for the time in each state, a fact that speaks of another old state than the one told
        -- last ends it with the last thing the server told before it was away.
        SELECT c.*, CASE WHEN c.until IS NULL OR c.left_as = c.state THEN c.until
                         ELSE least(c.until, greatest(c.began, a.alive)) END AS known_until
        FROM chained c
        LEFT JOIN LATERAL (
            SELECT j.at AS alive
            FROM (SELECT b.after_seq FROM journal_boots b WHERE b.base_seq < c.left_seq ORDER BY b.base_seq DESC LIMIT 1) b
            JOIN LATERAL (SELECT k.at FROM journal k WHERE k.seq <= b.after_seq ORDER BY k.seq DESC LIMIT 1) j ON true
        ) a ON c.left_as <> c.state
    ), followed AS (
        SELECT k.seq, k.agent, k.told, k.began, k.state, k.reason, k.since, k.known_until, k.since + l.lasts AS over,
               greatest(max(k.seen) OVER w,
                        max(CASE WHEN k.state <> 'unknown' THEN k.known_until END)
                            OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS seen
        FROM known k LEFT JOIN figures_limits l ON k.state = 'not_ready' AND l.reason = k.reason
        WINDOW w AS (PARTITION BY k.agent ORDER BY k.seq)
    ), stays AS (
        -- A stay that begins, or goes on after a time of which nobody knows: did it go over in that?
        SELECT figures_slot(f.began) AS slot, f.agent, f.reason, (f.since >= f.told)::integer AS times,
               coalesce(f.over < f.began AND (f.since >= f.told OR f.seen IS NULL OR f.over >= f.seen), false)::integer AS over_times,
               0::bigint AS over_lasted
        FROM followed f WHERE f.told IS NOT NULL AND f.state = 'not_ready'
        UNION ALL
        SELECT s.slot, f.agent, f.reason, 0, (f.over >= f.began AND figures_slot(f.over) = s.slot)::integer,
               figures_us(least(f.known_until, s.slot + interval '15 minutes')
                          - greatest(f.began, f.over, f.known_until - interval '31 days', s.slot))
        FROM followed f
        CROSS JOIN LATERAL generate_series(figures_slot(greatest(f.began, f.over, f.known_until - interval '31 days')),
                                           f.known_until - interval '1 microsecond', interval '15 minutes') AS s (slot)
        WHERE f.over < f.known_until AND f.began < f.known_until
    ), kept AS (
        INSERT INTO figures_states AS f (slot, agent, state, reason, lasted, times, over_times, over_lasted)
        SELECT s.slot, s.agent, 'not_ready', s.reason, 0, sum(s.times), sum(s.over_times), sum(s.over_lasted)
        FROM stays s
        WHERE s.slot >= range_first AND s.slot < range_last
        GROUP BY s.slot, s.agent, s.reason
        HAVING sum(s.times) > 0 OR sum(s.over_times) > 0 OR sum(s.over_lasted) > 0
        ON CONFLICT (slot, agent, state, reason) DO UPDATE SET
            times = f.times + excluded.times, over_times = f.over_times + excluded.over_times,
            over_lasted = f.over_lasted + excluded.over_lasted
        RETURNING f.slot
    ), kept_now AS (
        INSERT INTO figures_stay_now AS f (agent, seq, state, reason, since, at, seen)
        SELECT DISTINCT ON (w.agent) w.agent, w.seq, w.state, w.reason, w.since, w.began, w.seen
        FROM followed w WHERE going_on AND w.seq > after ORDER BY w.agent, w.seq DESC
        ON CONFLICT (agent) DO UPDATE SET seq = excluded.seq, state = excluded.state, reason = excluded.reason,
                                          since = excluded.since, at = excluded.at, seen = excluded.seen
    )
    INSERT INTO figures_days AS d (slot) SELECT DISTINCT date_trunc('day', k.slot, own_zone) FROM kept k
    ON CONFLICT (slot) DO UPDATE SET dirty = true WHERE NOT d.dirty;
END
$$;

ALTER FUNCTION figures_add(bigint, bigint, timestamptz, timestamptz, boolean) RENAME TO figures_add_work_and_states;

-- Adds what the facts with after < seq <= up_to tell, in the two ways; the arguments are those of both.
CREATE FUNCTION figures_add(
    after bigint, up_to bigint, range_first timestamptz, range_last timestamptz, going_on boolean
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM figures_add_work_and_states(after, up_to, range_first, range_last, going_on);  -- makes the partitions
    PERFORM figures_add_stays(after, up_to, range_first, range_last, going_on);
END
$$;

-- Folds the oldest day that is over and has been added to since it was folded; returns whether there was one. What is
-- added meanwhile marks the day again: the mark is taken before the quarters are read. As before, but for the new columns.
CREATE OR REPLACE FUNCTION figures_fold() RETURNS boolean LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    own_zone text;
    day      timestamptz;
    day_end  timestamptz;
BEGIN
    SELECT p.zone INTO own_zone FROM figures_position p;
    UPDATE figures_days d SET dirty = false
    WHERE d.slot = (SELECT o.slot FROM figures_days o
                    WHERE o.dirty AND o.slot < date_trunc('day', now() - interval '15 minutes', own_zone)
                    ORDER BY o.slot LIMIT 1 FOR UPDATE)
    RETURNING d.slot INTO day;
    IF day IS NULL THEN
        RETURN false;
    END IF;
    day_end := ((day AT TIME ZONE own_zone)::date + 1)::timestamp AT TIME ZONE own_zone;
    DELETE FROM figures_queue_days f WHERE f.slot = day;
    DELETE FROM figures_agent_days f WHERE f.slot = day;
    DELETE FROM figures_state_days f WHERE f.slot = day;
    DELETE FROM figures_resolution_days f WHERE f.slot = day;
    INSERT INTO figures_queue_days (slot, queue, offered, answered, in_time, answer_wait, longest_wait, abandoned, short,
                                    abandon_wait, timed_out, overflowed, left_else, lost, handled, talk, hold, wrap_up,
                                    transferred, not_answered, refused)
    SELECT day, queue, sum(offered), sum(answered), sum(in_time), sum(answer_wait), max(longest_wait), sum(abandoned),
           sum(short), sum(abandon_wait), sum(timed_out), sum(overflowed), sum(left_else), sum(lost), sum(handled),
           sum(talk), sum(hold), sum(wrap_up), sum(transferred), sum(not_answered), sum(refused)
    FROM figures_queues WHERE slot >= day AND slot < day_end GROUP BY queue;
    INSERT INTO figures_agent_days (slot, agent, queue, handled, talk, hold, wrap_up, transferred, not_answered, refused)
    SELECT day, agent, queue, sum(handled), sum(talk), sum(hold), sum(wrap_up), sum(transferred), sum(not_answered),
           sum(refused)
    FROM figures_agents WHERE slot >= day AND slot < day_end GROUP BY agent, queue;
    INSERT INTO figures_state_days (slot, agent, state, reason, lasted, times, over_times, over_lasted)
    SELECT day, agent, state, reason, sum(lasted), sum(times), sum(over_times), sum(over_lasted)
    FROM figures_states WHERE slot >= day AND slot < day_end GROUP BY agent, state, reason;
    INSERT INTO figures_resolution_days (slot, queue, agent, contacts, resolved)
    SELECT day, queue, agent, sum(contacts), sum(resolved)
    FROM figures_resolutions WHERE slot >= day AND slot < day_end GROUP BY queue, agent;
    RETURN true;
END
$$;
