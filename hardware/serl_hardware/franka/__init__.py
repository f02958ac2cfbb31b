"""Franka Research 3 with Franka Hand: figures and MuJoCo model."""

from serl_hardware.franka.figures import FrankaFigures, fr3

__all__ = ["FrankaFigures", "fr3"]
