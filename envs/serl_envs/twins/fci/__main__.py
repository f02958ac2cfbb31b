"""`python -m serl_envs.twins.fci`: the same as `serl twin franka`, for where the suite's command is not installed."""

import logging
import sys

from serl_envs.twins.fci.command_line import run
from serl_suite.errors import SerlError

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        sys.exit(run(sys.argv[1:]))
    except SerlError as error:
        sys.exit(f"serl twin franka: {error}")
