"""`python -m serl_servers.ros2`: the same as `serl ros2`, for where the suite's command is not installed."""

import logging
import sys

from serl_servers.ros2.command_line import run
from serl_suite.errors import SerlError

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        sys.exit(run(sys.argv[1:]))
    except SerlError as error:
        sys.exit(f"serl ros2: {error}")
