-- Phones in the browser: the SIP password of each, sealed with the server's key (cti/phone_passwords.py).

CREATE TABLE browser_phones (
    login     text  NOT NULL REFERENCES users (login) ON DELETE CASCADE,
    pbx       text  NOT NULL,
    interface text  NOT NULL,
    password  bytea NOT NULL,
    PRIMARY KEY (login, pbx)
);

COMMENT ON TABLE browser_phones IS 'counts only while the interface is still the agent''s phone on that PBX';
