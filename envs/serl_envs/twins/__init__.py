"""Robots that are simulated in MuJoCo and stand in for metal ones."""
