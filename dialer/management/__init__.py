"""Campaigns for those who manage them: settings, start and stop, live view, figures, REST and command line."""
