-- Who has pressed the key during the message, to be listed though a server died before it could.
CREATE INDEX attempts_opted_out ON attempts (id) WHERE opted_out;
