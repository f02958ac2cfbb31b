import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "franka"))

from rig import ENVIRONMENT

# before anything joins a domain: nothing leaves this machine, and two test runs do not meet
os.environ["CYCLONEDDS_URI"] = (
    '<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>'
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    '<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>'
)
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
# other tests may have taken a copy already
ENVIRONMENT.update({name: os.environ[name] for name in ("CYCLONEDDS_URI", "ROS_DOMAIN_ID")})
