"""What the server is wired to, by subject: commands, routes, who reacts to what, what is measured."""
