"""`serl doctor`: what keeps a rig from working, and what to do about it."""
