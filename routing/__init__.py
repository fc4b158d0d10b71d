"""Who should take the call: rules, skills, priorities, callbacks, overflow."""
