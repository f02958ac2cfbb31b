"""The Franka arm's robot server: a control loop in a process of its own, and the ZMQ service beside it."""
