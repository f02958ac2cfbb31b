"""A Franka arm with hand in MuJoCo that speaks the arm's own wire protocol (FCI version 10) to unmodified clients."""
