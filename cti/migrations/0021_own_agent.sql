-- A customer's own agent (account manager): the login of a user. No foreign key: a user who leaves leaves the mark.

ALTER TABLE accounts ADD COLUMN own_agent text NOT NULL DEFAULT '' CHECK (length(own_agent) <= 64);
