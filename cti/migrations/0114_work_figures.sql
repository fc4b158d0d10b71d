-- What figures of other work need: when an item was first accepted, and for how long it was being done, in all (seconds).

ALTER TABLE work_items
    ADD COLUMN begun  timestamptz,
    ADD COLUMN worked double precision NOT NULL DEFAULT 0 CHECK (worked >= 0);

CREATE INDEX work_items_by_created ON work_items (created);
