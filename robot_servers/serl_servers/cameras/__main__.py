"""`python -m serl_servers.cameras`: the same as `serl camera`, for where the suite's command is not installed."""

import logging
import sys

from serl_servers.cameras.command_line import run
from serl_suite.errors import SerlError

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        sys.exit(run(sys.argv[1:]))
    except SerlError as error:
        sys.exit(f"serl camera: {error}")
