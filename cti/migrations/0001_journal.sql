-- The journal: every published fact, once, in the order of its number.
--
-- This folder's files are plain SQL, named NNNN_words.sql, applied in the order of their names, each once and in a
-- transaction of its own, forward only. A file that has been released is never changed: a further file mends it.
--
-- Size and retention: a call tells about 12 facts, 10 million calls 120 million rows of some 600 bytes. Rows are only
-- ever appended, in the order of `seq`, so the table is partitioned by ranges of `seq`: the primary key stays `seq`
-- alone, reading on from a number touches one partition or two, and old facts leave by DROP TABLE, which frees the disk
-- at once and leaves nothing to vacuum. Partitions are of a fixed width (2^22 numbers), made ahead by the writer:
-- a partition by the day would need the day in the primary key and would have to be merged in every read.
-- A small centre fills a partition in a year; the part of it that is too old is deleted row by row, which is cheap there.
-- Too old is told by `journal_days`, our own clock's record of which number each day began with, because `at` comes from
-- Asterisk and a PBX with a wrong clock must neither hold back nor hasten a deletion.
--
-- `data` is json and not jsonb: it is kept as it was sent, byte by byte, so that a resumed client gets the frames the
-- others got; and it writes twice as fast. `data->>'agent'` works as with jsonb; `data::jsonb` gives the rest.

CREATE TABLE journal (
    seq    bigint      NOT NULL,
    at     timestamptz NOT NULL,
    type   text        NOT NULL,
    call   text,
    topics text[]      NOT NULL,
    data   json        NOT NULL,
    PRIMARY KEY (seq)
) PARTITION BY RANGE (seq);

CREATE INDEX journal_call ON journal (call, seq) WHERE call IS NOT NULL;

COMMENT ON TABLE journal IS 'every published fact once; appended by one writer, never changed';

-- One row. Who may write (a lease with a fencing token), and how far the numbers have come.
-- origin: cluster, timeline and database in which the epoch began; a copy restored elsewhere begins a new epoch.
-- published: the newest number given out when the writer last said so; used to continue after an unclean end.
CREATE TABLE journal_state (
    only_row  boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch     uuid        NOT NULL DEFAULT gen_random_uuid(),
    origin    text,
    token     bigint      NOT NULL DEFAULT 0,
    holder    text        NOT NULL DEFAULT '',
    process   text        NOT NULL DEFAULT '',
    expires   timestamptz NOT NULL DEFAULT now(),
    renewed   timestamptz NOT NULL DEFAULT now(),
    published bigint      NOT NULL DEFAULT 0,
    clean     boolean     NOT NULL DEFAULT true
);
INSERT INTO journal_state DEFAULT VALUES;

-- One row: facts with a lower number have been deleted by age. Apart from journal_state, whose row the writer locks
-- with every batch and must not wait for a long deletion.
CREATE TABLE journal_kept (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    first    bigint  NOT NULL DEFAULT 0
);
INSERT INTO journal_kept DEFAULT VALUES;

-- A start of the server. Numbers strictly between after_seq and base_seq may have been given out by the process
-- before, which did not live to write them down: nobody who has seen one of them can be resumed.
CREATE TABLE journal_boots (
    base_seq  bigint      PRIMARY KEY,
    after_seq bigint      NOT NULL,
    started   timestamptz NOT NULL DEFAULT now(),
    holder    text        NOT NULL
);

-- Facts that were published and could not be written down.
CREATE TABLE journal_gaps (
    first bigint      PRIMARY KEY,
    last  bigint      NOT NULL,
    lost  bigint      NOT NULL CHECK (lost > 0),
    noted timestamptz NOT NULL DEFAULT now(),
    CHECK (first <= last)
);

CREATE TABLE journal_days (
    day   date   PRIMARY KEY,
    first bigint NOT NULL
);

-- Makes the partitions for the numbers first..last, and the one after them; returns the first number without room.
-- ATTACH, unlike CREATE ... PARTITION OF, waits for no reader.
CREATE FUNCTION journal_make_room(first bigint, last bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    width CONSTANT bigint := 4194304;
    part  bigint;
    name  text;
BEGIN
    FOREACH part IN ARRAY ARRAY(SELECT DISTINCT p FROM unnest(ARRAY[first / width, last / width, last / width + 1]) p ORDER BY p)
    LOOP
        name := 'journal_p' || lpad(part::text, 9, '0');
        IF to_regclass(name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE journal INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
            EXECUTE format('ALTER TABLE journal ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                           name, part * width, (part + 1) * width);
        END IF;
    END LOOP;
    RETURN (last / width + 2) * width;
END
$$;

-- Deletes the facts written before the given day; returns how many partitions were dropped and rows deleted.
-- Waits at most two seconds for readers, then fails and changes nothing; the writer buffers meanwhile.
CREATE FUNCTION journal_expire(before date, OUT dropped integer, OUT deleted bigint)
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    width CONSTANT bigint := 4194304;
    cut   bigint;
    part  record;
BEGIN
    dropped := 0;
    deleted := 0;
    SELECT min(d.first) INTO cut FROM journal_days d WHERE d.day >= before;
    IF cut IS NULL THEN
        -- nothing was written since that day: all that was written is older
        SELECT max(j.seq) + 1 INTO cut FROM journal j;
    END IF;
    IF cut IS NULL OR cut <= (SELECT k.first FROM journal_kept k) THEN
        RETURN;
    END IF;
    UPDATE journal_kept SET first = cut;
    FOR part IN
        SELECT c.relname AS name, substr(c.relname, 10)::bigint AS nr
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'journal'::regclass
        ORDER BY 2
    LOOP
        IF (part.nr + 1) * width <= cut THEN
            EXECUTE format('DROP TABLE %I', part.name);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    DELETE FROM journal j WHERE j.seq < cut;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM journal_days d WHERE d.first < cut;
    DELETE FROM journal_gaps g WHERE g.last < cut;
    DELETE FROM journal_boots b WHERE b.base_seq < cut;
END
$$;
