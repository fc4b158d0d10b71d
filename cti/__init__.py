"""The CTI server: what is happening on the switch right now, and who may see and steer it."""
