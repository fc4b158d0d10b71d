-- Figures: what the facts of the journal come to, summed up per quarter of an hour. docs/figures.md defines each of them.
--
-- Rolled up in the database, fact by fact in the order of `seq`, by figures_roll_up: the position and the sums change in one
-- transaction, so whatever is killed when, no fact is left out and none counted twice. Each fact adds to the quarter of an
-- hour that it itself tells, so facts may come late, and a range can be computed again (figures_again) while the journal
-- has it. What a fact adds does not depend on how the facts are divided into batches; only agents' states need the one
-- before, which figures_agent_now keeps.
--
-- A quarter of an hour, in UTC, is a part of every hour and day of every time zone of today, so reports in any zone are sums
-- of these rows. Partitions by the month, made when needed. Days of the call centre's own zone that are over are folded once
-- more, into one row a day (figures_fold): a year's report reads these. Time is counted in whole microseconds: sums of whole
-- numbers do not depend on their order.

CREATE TABLE figures_position (
    only_row boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    seq      bigint      NOT NULL DEFAULT 0,
    at       timestamptz NOT NULL DEFAULT '-infinity',
    zone     text        NOT NULL DEFAULT 'UTC'
);
INSERT INTO figures_position DEFAULT VALUES;

COMMENT ON COLUMN figures_position.at IS 'when the newest fact that is summed up happened';
COMMENT ON COLUMN figures_position.zone IS 'the time zone whose days are folded';

-- queue '' is the rule for those not named. Seconds.
CREATE TABLE figures_targets (
    queue         text PRIMARY KEY,
    answer_within real NOT NULL CHECK (answer_within >= 0),
    short_abandon real NOT NULL CHECK (short_abandon >= 0)
);
INSERT INTO figures_targets VALUES ('', 20, 5);

-- Visits of callers to a queue, in the quarter of an hour in which they joined it; from `handled` on what all agents
-- together did with its calls, the same as in figures_agents.
CREATE TABLE figures_queues (
    slot          timestamptz NOT NULL,
    queue         text        NOT NULL,
    offered       bigint      NOT NULL DEFAULT 0,
    answered      bigint      NOT NULL DEFAULT 0,
    in_time       bigint      NOT NULL DEFAULT 0,
    answer_wait   bigint      NOT NULL DEFAULT 0,
    longest_wait  bigint      NOT NULL DEFAULT 0,
    abandoned     bigint      NOT NULL DEFAULT 0,
    short         bigint      NOT NULL DEFAULT 0,
    abandon_wait  bigint      NOT NULL DEFAULT 0,
    timed_out     bigint      NOT NULL DEFAULT 0,
    overflowed    bigint      NOT NULL DEFAULT 0,
    left_else     bigint      NOT NULL DEFAULT 0,
    lost          bigint      NOT NULL DEFAULT 0,
    handled       bigint      NOT NULL DEFAULT 0,
    talk          bigint      NOT NULL DEFAULT 0,
    hold          bigint      NOT NULL DEFAULT 0,
    wrap_up       bigint      NOT NULL DEFAULT 0,
    transferred   bigint      NOT NULL DEFAULT 0,
    not_answered  bigint      NOT NULL DEFAULT 0,
    refused       bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (slot, queue)
) PARTITION BY RANGE (slot);

-- What agents did with calls; queue '' is calls that came from none. Contacts, talk, hold and wrap-up in the quarter of an
-- hour in which the agent's part of the call ended, the others in which they happened.
CREATE TABLE figures_agents (
    slot        timestamptz NOT NULL,
    agent       text        NOT NULL,
    queue       text        NOT NULL,
    handled     bigint      NOT NULL DEFAULT 0,
    talk        bigint      NOT NULL DEFAULT 0,
    hold        bigint      NOT NULL DEFAULT 0,
    wrap_up     bigint      NOT NULL DEFAULT 0,
    transferred bigint      NOT NULL DEFAULT 0,
    not_answered bigint     NOT NULL DEFAULT 0,
    refused     bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (slot, agent, queue)
) PARTITION BY RANGE (slot);

-- How long agents were in which state, cut where a quarter of an hour ends. `reason` of not_ready only.
CREATE TABLE figures_states (
    slot   timestamptz NOT NULL,
    agent  text        NOT NULL,
    state  text        NOT NULL,
    reason text        NOT NULL,
    lasted bigint      NOT NULL,
    PRIMARY KEY (slot, agent, state, reason)
) PARTITION BY RANGE (slot);

-- The state each agent is in as of figures_position: its time is not in the sums yet.
CREATE TABLE figures_agent_now (
    agent  text        PRIMARY KEY,
    seq    bigint      NOT NULL,
    state  text        NOT NULL,
    reason text        NOT NULL,
    call   text,
    since  timestamptz NOT NULL,
    at     timestamptz NOT NULL
);

-- Who waits as of figures_position. One whose end is never told, because the server was not there, is counted as lost when
-- the PBX has been asked again and does not know of the wait any more.
CREATE TABLE figures_waiting (
    call  text        PRIMARY KEY,
    seq   bigint      NOT NULL,
    queue text        NOT NULL,
    at    timestamptz NOT NULL
);

-- Contacts of known customers, and after how many of them the same customer needed no other (crm/resolution.py).
CREATE TABLE figures_resolutions (
    slot     timestamptz NOT NULL,
    queue    text        NOT NULL,
    agent    text        NOT NULL,
    contacts bigint      NOT NULL,
    resolved bigint      NOT NULL,
    PRIMARY KEY (slot, queue, agent)
) PARTITION BY RANGE (slot);

-- Days (UTC) whose contacts are settled, and after how many days without another.
CREATE TABLE figures_settled (
    day  date    PRIMARY KEY,
    days integer NOT NULL
);

-- Days of the zone in figures_position, by their first moment, whose quarters have ever been added to. While `dirty` the
-- rows of the day below are not those of its quarters and nobody reads them.
CREATE TABLE figures_days (
    slot  timestamptz PRIMARY KEY,
    dirty boolean     NOT NULL DEFAULT true
);
CREATE INDEX figures_days_dirty ON figures_days (slot) WHERE dirty;
CREATE TABLE figures_queue_days (LIKE figures_queues, PRIMARY KEY (slot, queue));
CREATE TABLE figures_agent_days (LIKE figures_agents, PRIMARY KEY (slot, agent, queue));
CREATE TABLE figures_state_days (LIKE figures_states, PRIMARY KEY (slot, agent, state, reason));
CREATE TABLE figures_resolution_days (LIKE figures_resolutions, PRIMARY KEY (slot, queue, agent));

CREATE INDEX interactions_by_start ON interactions USING brin (started) WITH (pages_per_range = 32);

CREATE FUNCTION figures_slot(at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin('15 minutes'::interval, at, '2000-01-01 00:00:00+00'::timestamptz);

-- Microseconds of a span; seconds as JSON tells them.
CREATE FUNCTION figures_us(span interval) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (extract(epoch FROM span) * 1000000)::bigint;
CREATE FUNCTION figures_us(seconds text) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN greatest(0, round(seconds::numeric * 1000000)::bigint);

-- Makes the partitions of a month. ATTACH, unlike CREATE ... PARTITION OF, waits for no reader.
CREATE FUNCTION figures_make_room(month timestamptz) RETURNS void LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    parent text;
    name   text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['figures_queues', 'figures_agents', 'figures_states', 'figures_resolutions'] LOOP
        name := parent || to_char(month, '"_p"YYYYMM');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           parent, name, date_trunc('month', month), date_trunc('month', month) + interval '1 month');
        END IF;
    END LOOP;
END
$$;

-- Adds what the facts with after < seq <= up_to tell of the time from `range_first` to before `range_last`. `going_on`:
-- they follow the ones summed up before. Facts whose time cannot be right (before 2000, after 2100) are left out.
CREATE FUNCTION figures_add(
    after bigint, up_to bigint, range_first timestamptz, range_last timestamptz, going_on boolean
) RETURNS void LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    own_zone    text;
    asked_again boolean;
BEGIN
    PERFORM figures_make_room(m.month) FROM (
        SELECT DISTINCT date_trunc('month', t.at) AS month
        FROM journal j, LATERAL (VALUES (j.at), (j.at - interval '15 days'), (j.at - interval '31 days')) AS t (at)
        WHERE j.seq > after AND j.seq <= up_to AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
          AND j.type IN ('queue.caller_joined', 'queue.caller_left', 'call.connection_cleared', 'call.diverted', 'call.transferred',
                         'agent.state_changed')
    ) m;

    SELECT p.zone INTO own_zone FROM figures_position p;

    -- Visits to queues.
    WITH kept AS (
    INSERT INTO figures_queues AS f (slot, queue, offered, answered, in_time, answer_wait, longest_wait, abandoned, short,
                                     abandon_wait, timed_out, overflowed, left_else, lost)
    SELECT v.slot, v.queue, count(*),
           count(*) FILTER (WHERE v.reason = 'answered'),
           count(*) FILTER (WHERE v.reason = 'answered' AND v.waited <= v.answer_within),
           coalesce(sum(v.waited) FILTER (WHERE v.reason = 'answered'), 0),
           max(v.waited),
           count(*) FILTER (WHERE v.reason = 'abandoned' AND v.waited >= v.short_abandon),
           count(*) FILTER (WHERE v.reason = 'abandoned' AND v.waited < v.short_abandon),
           coalesce(sum(v.waited) FILTER (WHERE v.reason = 'abandoned' AND v.waited >= v.short_abandon), 0),
           count(*) FILTER (WHERE v.reason = 'timed_out'),
           count(*) FILTER (WHERE v.reason = 'overflowed'),
           count(*) FILTER (WHERE v.reason NOT IN ('answered', 'abandoned', 'timed_out', 'overflowed', 'lost')),
           count(*) FILTER (WHERE v.reason = 'lost')
    FROM (
        SELECT figures_slot(j.at - w.waited * interval '1 microsecond') AS slot, w.queue, w.reason, w.waited,
               coalesce(t.answer_within, u.answer_within)::numeric * 1000000 AS answer_within,
               coalesce(t.short_abandon, u.short_abandon)::numeric * 1000000 AS short_abandon
        FROM journal j
        CROSS JOIN LATERAL (SELECT j.data ->> 'queue' AS queue, j.data ->> 'reason' AS reason,
                                   figures_us(j.data ->> 'waited') AS waited) w
        CROSS JOIN (SELECT * FROM figures_targets WHERE queue = '') u
        LEFT JOIN figures_targets t ON t.queue = w.queue
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'queue.caller_left'
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
          AND w.waited < 31 * 86400 * 1000000::bigint
    ) v
    WHERE v.slot >= range_first AND v.slot < range_last
    GROUP BY v.slot, v.queue
    ON CONFLICT (slot, queue) DO UPDATE SET
        offered = f.offered + excluded.offered, answered = f.answered + excluded.answered,
        in_time = f.in_time + excluded.in_time, answer_wait = f.answer_wait + excluded.answer_wait,
        longest_wait = greatest(f.longest_wait, excluded.longest_wait),
        abandoned = f.abandoned + excluded.abandoned, short = f.short + excluded.short,
        abandon_wait = f.abandon_wait + excluded.abandon_wait, timed_out = f.timed_out + excluded.timed_out,
        overflowed = f.overflowed + excluded.overflowed, left_else = f.left_else + excluded.left_else,
        lost = f.lost + excluded.lost
    RETURNING f.slot)
    INSERT INTO figures_days AS d (slot) SELECT DISTINCT date_trunc('day', k.slot, own_zone) FROM kept k
    ON CONFLICT (slot) DO UPDATE SET dirty = true WHERE NOT d.dirty;

    -- Visits whose end nobody has told: begun before a start of the server, and not there any more after it.
    WITH moves AS (
        SELECT j.seq, j.at, j.call, j.data ->> 'queue' AS queue,
               j.type = 'queue.caller_joined' AND j.at >= '2000-01-01' AND j.at < '2100-01-01' AS joins
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type IN ('queue.caller_joined', 'queue.caller_left')
        UNION ALL
        SELECT w.seq, w.at, w.call, w.queue, true FROM figures_waiting w WHERE going_on
    ), followed AS (
        SELECT m.*, lead(m.seq) OVER (PARTITION BY m.call ORDER BY m.seq) AS ended FROM moves m
    ), asked AS MATERIALIZED (
        SELECT j.seq, j.data ->> 'pbx' AS pbx,
               (SELECT max(b.base_seq) FROM journal_boots b WHERE b.base_seq < j.seq) AS boot
        FROM journal j WHERE j.seq > after AND j.seq <= up_to AND j.type = 'pbx.resynced'
    ), fates AS (
        SELECT n.seq, n.at, n.call, n.queue, n.ended,
               (SELECT min(a.seq) FROM asked a WHERE a.pbx = split_part(n.call, ':', 1) AND a.boot >= n.seq) AS missed
        FROM followed n WHERE n.joins
    ), forgotten AS (
        DELETE FROM figures_waiting w USING fates t
        WHERE going_on AND w.call = t.call AND w.seq = t.seq AND coalesce(t.ended, t.missed) IS NOT NULL
    ), kept AS (
        INSERT INTO figures_queues AS f (slot, queue, offered, lost)
        SELECT figures_slot(t.at), t.queue, count(*), count(*)
        FROM fates t
        WHERE t.missed IS NOT NULL AND (t.ended IS NULL OR t.ended > t.missed)
          AND figures_slot(t.at) >= range_first AND figures_slot(t.at) < range_last
        GROUP BY 1, 2
        ON CONFLICT (slot, queue) DO UPDATE SET offered = f.offered + excluded.offered, lost = f.lost + excluded.lost
        RETURNING f.slot
    )
    INSERT INTO figures_days AS d (slot) SELECT DISTINCT date_trunc('day', k.slot, own_zone) FROM kept k
    ON CONFLICT (slot) DO UPDATE SET dirty = true WHERE NOT d.dirty;

    asked_again := EXISTS (SELECT FROM journal j
                           WHERE j.seq > after AND j.seq <= up_to AND j.type = 'pbx.resynced');
    INSERT INTO figures_waiting AS w (call, seq, queue, at)
    SELECT m.call, m.seq, m.queue, m.at
    FROM (SELECT j.call, j.seq, j.at, j.type, j.data ->> 'queue' AS queue,
                 lead(j.seq) OVER (PARTITION BY j.call ORDER BY j.seq) AS ended
          FROM journal j
          WHERE going_on AND j.seq > after AND j.seq <= up_to
            AND j.type IN ('queue.caller_joined', 'queue.caller_left')) m
    WHERE m.type = 'queue.caller_joined' AND m.ended IS NULL AND m.at >= '2000-01-01' AND m.at < '2100-01-01'
      AND NOT (asked_again AND EXISTS (
          SELECT FROM journal a JOIN journal_boots b ON b.base_seq >= m.seq AND b.base_seq < a.seq
          WHERE a.seq > m.seq AND a.seq <= up_to AND a.type = 'pbx.resynced'
            AND a.data ->> 'pbx' = split_part(m.call, ':', 1)))
    ON CONFLICT (call) DO UPDATE SET seq = excluded.seq, queue = excluded.queue, at = excluded.at;

    -- Agents. A period is the time from one change of an agent's state to the next; `at` never runs backwards in it.
    WITH changes AS (
        SELECT j.seq, j.at, j.data ->> 'agent' AS agent, j.data ->> 'old' AS old, j.data ->> 'new' AS state,
               CASE j.data ->> 'new' WHEN 'not_ready' THEN coalesce(j.data ->> 'reason', '') ELSE '' END AS reason,
               j.data ->> 'call' AS call, (j.data ->> 'since')::timestamptz AS since
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'agent.state_changed'
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
        UNION ALL
        SELECT n.seq, n.at, n.agent, NULL, n.state, n.reason, n.call, n.since
        FROM figures_agent_now n WHERE going_on
    ), clocked AS (
        SELECT c.seq, c.agent, c.old, c.state, c.reason, c.call, c.since,
               max(c.at) OVER (PARTITION BY c.agent ORDER BY c.seq) AS at
        FROM changes c
    ), chained AS (
        SELECT c.seq, c.agent, c.old, c.at AS until,
               lag(c.state) OVER w AS state, lag(c.reason) OVER w AS reason, lag(c.call) OVER w AS call,
               lag(c.since) OVER w AS since, lag(c.at) OVER w AS began
        FROM clocked c WINDOW w AS (PARTITION BY c.agent ORDER BY c.seq)
    ), known AS (
        -- A fact that speaks of another old state than the one told last: the server was not there between. Until the
        -- last thing it told before that, the state was as told; from then on nobody knows.
        SELECT c.*, CASE WHEN c.old = c.state THEN c.until
                         ELSE least(c.until, greatest(c.began, a.alive)) END AS known_until
        FROM (SELECT d.agent, d.seq, d.old, d.state, d.reason, d.call, d.since, d.until,
                     greatest(d.began, d.until - interval '31 days') AS began
              FROM chained d WHERE d.state IS NOT NULL AND d.state <> 'logged_off') c
        LEFT JOIN LATERAL (
            SELECT j.at AS alive
            FROM (SELECT b.after_seq FROM journal_boots b WHERE b.base_seq < c.seq ORDER BY b.base_seq DESC LIMIT 1) b
            JOIN LATERAL (SELECT k.at FROM journal k WHERE k.seq <= b.after_seq ORDER BY k.seq DESC LIMIT 1) j ON true
        ) a ON c.old <> c.state
    ), periods AS (
        SELECT k.agent, k.seq, k.state, k.reason, k.call, k.since, k.began, k.known_until AS until
        FROM known k WHERE k.known_until > k.began
        UNION ALL
        SELECT k.agent, k.seq, 'unknown', '', NULL, k.known_until, k.known_until, k.until
        FROM known k WHERE k.until > k.known_until
    ), kept_states AS (
        INSERT INTO figures_states AS f (slot, agent, state, reason, lasted)
        SELECT s.slot, p.agent, p.state, p.reason,
               sum(figures_us(least(p.until, s.slot + interval '15 minutes') - greatest(p.began, s.slot)))
        FROM periods p
        CROSS JOIN LATERAL generate_series(figures_slot(p.began), p.until - interval '1 microsecond',
                                           interval '15 minutes') AS s (slot)
        WHERE s.slot >= range_first AND s.slot < range_last
        GROUP BY s.slot, p.agent, p.state, p.reason
        ON CONFLICT (slot, agent, state, reason) DO UPDATE SET lasted = f.lasted + excluded.lasted
        RETURNING f.slot
    ), kept_now AS (
        INSERT INTO figures_agent_now AS f (agent, seq, state, reason, call, since, at)
        SELECT DISTINCT ON (c.agent) c.agent, c.seq, c.state, c.reason, c.call, c.since, c.at
        FROM clocked c WHERE going_on AND c.seq > after ORDER BY c.agent, c.seq DESC
        ON CONFLICT (agent) DO UPDATE SET seq = excluded.seq, state = excluded.state, reason = excluded.reason,
                                          call = excluded.call, since = excluded.since, at = excluded.at
    ), did AS (
        SELECT figures_slot(j.at) AS slot, j.data ->> 'agent' AS agent, coalesce(j.data ->> 'queue', '') AS queue,
               1 AS handled, figures_us(j.data ->> 'talked') AS talk, figures_us(j.data ->> 'held') AS hold,
               0::bigint AS wrap_up, 0 AS transferred, 0 AS not_answered, 0 AS refused
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'call.connection_cleared'
          AND j.data ->> 'agent' IS NOT NULL
          AND (j.data ->> 'talked')::numeric + (j.data ->> 'held')::numeric > 0
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
        UNION ALL
        SELECT figures_slot(j.at), j.data ->> 'agent', coalesce(j.data ->> 'queue', ''), 0, 0, 0, 0, 0,
               (j.data ->> 'reason' = 'no_answer')::integer, (j.data ->> 'reason' <> 'no_answer')::integer
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'call.diverted' AND j.data ->> 'agent' IS NOT NULL
          AND j.data ->> 'reason' IN ('no_answer', 'rejected', 'busy', 'unreachable', 'congestion')
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
        UNION ALL
        SELECT figures_slot(j.at), j.data #>> '{by,agent}', coalesce(j.data ->> 'queue', ''), 0, 0, 0, 0, 1, 0, 0
        FROM journal j
        WHERE j.seq > after AND j.seq <= up_to AND j.type = 'call.transferred'
          AND j.data #>> '{by,agent}' IS NOT NULL
          AND j.at >= '2000-01-01' AND j.at < '2100-01-01'
        UNION ALL
        -- Wrap-up belongs to the call before it, and to the quarter of an hour in which that ended.
        SELECT figures_slot(greatest(least(p.since, p.began), p.until - interval '31 days')), p.agent, coalesce(q.queue, ''), 0, 0, 0,
               figures_us(p.until - p.began), 0, 0, 0
        FROM periods p
        LEFT JOIN LATERAL (
            SELECT j.data ->> 'queue' AS queue FROM journal j
            WHERE j.call = p.call AND j.seq < p.seq AND j.type = 'call.connection_cleared'
              AND j.data ->> 'agent' = p.agent AND j.data ->> 'queue' IS NOT NULL
            ORDER BY j.seq DESC LIMIT 1
        ) q ON true
        WHERE p.state = 'wrap_up'
    ), kept_work AS (
    INSERT INTO figures_agents AS f (slot, agent, queue, handled, talk, hold, wrap_up, transferred, not_answered, refused)
    SELECT d.slot, d.agent, d.queue, sum(d.handled), sum(d.talk), sum(d.hold), sum(d.wrap_up), sum(d.transferred),
           sum(d.not_answered), sum(d.refused)
    FROM did d
    WHERE d.slot >= range_first AND d.slot < range_last
    GROUP BY d.slot, d.agent, d.queue
    ON CONFLICT (slot, agent, queue) DO UPDATE SET
        handled = f.handled + excluded.handled, talk = f.talk + excluded.talk, hold = f.hold + excluded.hold,
        wrap_up = f.wrap_up + excluded.wrap_up, transferred = f.transferred + excluded.transferred,
        not_answered = f.not_answered + excluded.not_answered, refused = f.refused + excluded.refused
    RETURNING f.slot
    ), kept_queues AS (
    INSERT INTO figures_queues AS f (slot, queue, handled, talk, hold, wrap_up, transferred, not_answered, refused)
    SELECT d.slot, d.queue, sum(d.handled), sum(d.talk), sum(d.hold), sum(d.wrap_up), sum(d.transferred),
           sum(d.not_answered), sum(d.refused)
    FROM did d
    WHERE d.slot >= range_first AND d.slot < range_last AND d.queue <> ''
    GROUP BY d.slot, d.queue
    ON CONFLICT (slot, queue) DO UPDATE SET
        handled = f.handled + excluded.handled, talk = f.talk + excluded.talk, hold = f.hold + excluded.hold,
        wrap_up = f.wrap_up + excluded.wrap_up, transferred = f.transferred + excluded.transferred,
        not_answered = f.not_answered + excluded.not_answered, refused = f.refused + excluded.refused
    )
    INSERT INTO figures_days AS d (slot)
    SELECT DISTINCT date_trunc('day', k.slot, own_zone)
    FROM (SELECT s.slot FROM kept_states s UNION SELECT w.slot FROM kept_work w) k
    ON CONFLICT (slot) DO UPDATE SET dirty = true WHERE NOT d.dirty;
END
$$;

-- Sums up the next facts, at most so many; returns how many it was. All or nothing; one at a time.
CREATE FUNCTION figures_roll_up(most integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    after bigint;
    up_to bigint;
    facts bigint;
BEGIN
    SELECT p.seq INTO after FROM figures_position p FOR UPDATE;
    SELECT max(n.seq), count(*) INTO up_to, facts
    FROM (SELECT j.seq FROM journal j WHERE j.seq > after ORDER BY j.seq LIMIT most) n;
    IF up_to IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM figures_add(after, up_to, '-infinity', 'infinity', true);
    UPDATE figures_position p SET seq = up_to, at = (SELECT j.at FROM journal j WHERE j.seq = up_to);
    RETURN facts;
END
$$;

-- Computes the quarters of an hour from `range_first` to before `range_last` again, from the journal, as far as it is
-- summed up: after a change of figures_targets. Raises when the journal no longer has the facts of that time.
-- Looks at facts written from seven days before the range to seven days after it: a state that began earlier, or a fact
-- that came later, is not counted.
CREATE FUNCTION figures_again(range_first timestamptz, range_last timestamptz) RETURNS void
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    position bigint;
    up_to    bigint;
    kept     bigint;
    after    bigint;
BEGIN
    IF range_first <> figures_slot(range_first) OR range_last <> figures_slot(range_last)
       OR range_last <= range_first THEN
        RAISE EXCEPTION 'the range must begin and end with a quarter of an hour'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT p.seq INTO position FROM figures_position p FOR UPDATE;
    SELECT k.first INTO kept FROM journal_kept k;
    SELECT max(d.first) INTO after FROM journal_days d WHERE d.day <= (range_first - interval '1 day')::date;
    IF kept > 0 AND after IS NULL THEN
        RAISE EXCEPTION 'the journal no longer has the facts of that time' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT max(d.first) INTO after FROM journal_days d WHERE d.day <= (range_first - interval '7 days')::date;
    DELETE FROM figures_queues f WHERE f.slot >= range_first AND f.slot < range_last;
    DELETE FROM figures_agents f WHERE f.slot >= range_first AND f.slot < range_last;
    DELETE FROM figures_states f WHERE f.slot >= range_first AND f.slot < range_last;
    UPDATE figures_days d SET dirty = true WHERE d.slot > range_first - interval '2 days' AND d.slot < range_last;
    SELECT min(d.first) - 1 INTO up_to FROM journal_days d WHERE d.day > (range_last + interval '7 days')::date;
    PERFORM figures_add(coalesce(after - 1, greatest(kept - 1, 0)), least(position, up_to), range_first, range_last,
                        false);
END
$$;

-- Folds the oldest day that is over and has been added to since it was folded; returns whether there was one. What is
-- added meanwhile marks the day again: the mark is taken before the quarters are read.
CREATE FUNCTION figures_fold() RETURNS boolean LANGUAGE plpgsql SET timezone = 'UTC' AS $$
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
    INSERT INTO figures_state_days (slot, agent, state, reason, lasted)
    SELECT day, agent, state, reason, sum(lasted)
    FROM figures_states WHERE slot >= day AND slot < day_end GROUP BY agent, state, reason;
    INSERT INTO figures_resolution_days (slot, queue, agent, contacts, resolved)
    SELECT day, queue, agent, sum(contacts), sum(resolved)
    FROM figures_resolutions WHERE slot >= day AND slot < day_end GROUP BY queue, agent;
    RETURN true;
END
$$;

-- Makes this the zone whose days are folded; when it is another one, all days are to be folded anew.
CREATE FUNCTION figures_set_zone(new_zone text) RETURNS void LANGUAGE plpgsql SET timezone = 'UTC' AS $$
BEGIN
    UPDATE figures_position p SET zone = new_zone WHERE p.zone <> new_zone;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    TRUNCATE figures_queue_days, figures_agent_days, figures_state_days, figures_resolution_days, figures_days;
    INSERT INTO figures_days (slot)
    SELECT DISTINCT date_trunc('day', d.day, new_zone)
    FROM (SELECT least((SELECT min(q.slot) FROM figures_queues q), (SELECT min(a.slot) FROM figures_agents a),
                       (SELECT min(t.slot) FROM figures_states t), (SELECT min(r.slot) FROM figures_resolutions r)) AS first,
                 greatest((SELECT max(q.slot) FROM figures_queues q), (SELECT max(a.slot) FROM figures_agents a),
                          (SELECT max(t.slot) FROM figures_states t), (SELECT max(r.slot) FROM figures_resolutions r)) AS last
         ) s,
         LATERAL generate_series(s.first, s.last + interval '1 day', interval '12 hours') AS d (day);
END
$$;
