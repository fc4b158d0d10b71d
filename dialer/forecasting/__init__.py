"""What will happen: estimates from calls and agents for pacing, and dry runs of campaigns."""
