"""A learner that only receives: `mini_learner.py RUN PORT`. Ends well on SIGTERM."""

import signal
import sys
import threading
from pathlib import Path

from serl_suite.data.journal import Journal
from serl_suite.nodes.ingest import Ingest

journal = Journal(Path(sys.argv[1]))
ingest = Ingest(f"tcp://127.0.0.1:{sys.argv[2]}", journal, "run")
ingest.set_agent({})
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
version = 0
while not stop.is_set():
    ingest.wait(0.05)
    ingest.drain()
    version += 1
    ingest.publish(version, {})
ingest.close()
journal.close()
