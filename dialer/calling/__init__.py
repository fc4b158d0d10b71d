"""A campaign under way: contacts claimed, calls placed and followed, agents given to them, outcomes written."""
