-- Who was found not to be callable is looked at again when what stood in the way may have changed.

CREATE INDEX list_contacts_blocked ON list_contacts (list_id) WHERE state = 'blocked';
