"""REST: the same state and commands as the websocket, for programs that ask now and then. One file a noun."""
