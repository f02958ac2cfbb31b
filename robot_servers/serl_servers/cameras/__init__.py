"""The cameras of a rig: a process for each, and the ZMQ service that shows what they see."""
