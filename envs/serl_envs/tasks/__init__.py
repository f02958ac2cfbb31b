"""The tasks: each a reset distribution, an observation, an action scale and a success test."""
