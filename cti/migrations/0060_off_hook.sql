-- Whether an agent works off-hook: their phone is called once, the line stays open, and calls are connected to it.

ALTER TABLE users ADD COLUMN off_hook boolean NOT NULL DEFAULT false;
