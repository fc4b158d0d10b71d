"""The law of dialing: countries' profiles, calling hours, do-not-call, consents, the ledger of abandoned calls, evidence."""
