"""Who the customer is and what we did: accounts, ANI lookup, screen pop, interactions."""
