"""Whom to call next: lists, campaigns, compliance, pacing, attempts."""
