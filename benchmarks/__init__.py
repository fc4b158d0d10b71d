"""How fast it is and how much memory it needs, each beside a bare baseline in the same run. Not tests: see README.md."""
