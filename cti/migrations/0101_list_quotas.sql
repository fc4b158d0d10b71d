-- Quotas of lists, and contacts whose counting begins anew.

ALTER TABLE call_lists ADD COLUMN quota_until timestamptz;
COMMENT ON COLUMN call_lists.quota_until IS 'a quota is reached: not called before; dialer/quotas.py keeps it up to date';

ALTER TABLE list_contacts ADD COLUMN recycled timestamptz;
COMMENT ON COLUMN list_contacts.recycled IS 'made open again then: what follows an outcome counts attempts since';

CREATE INDEX attempts_of_list ON attempts (list_id, committed);
