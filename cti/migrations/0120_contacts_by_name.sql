-- Contacts of a list are looked up by a part of their name, as customers are.

CREATE INDEX list_contacts_by_part_of_name ON list_contacts USING gin (lower(name) gin_trgm_ops) WHERE name <> '';
