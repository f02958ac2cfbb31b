"""Networks that know no algorithm and no robot."""

from serl_suite.networks.ensemble import EnsembleMLP
from serl_suite.networks.gaussian import TanhGaussian, log_density
from serl_suite.networks.normaliser import Normaliser

__all__ = ["EnsembleMLP", "Normaliser", "TanhGaussian", "log_density"]
