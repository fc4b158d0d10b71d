"""Figures: what the facts of the journal come to, per queue, agent and team (docs/figures.md)."""
