"""The processes of one learner: how they find each other, tell each other something, and notice that one has died.

torchrun starts them, each with its card. Rank 0 is the learner; the others do what it tells them.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import torch
import torch.distributed as dist

from serl_suite.agents.ranks import Ranks
from serl_suite.nodes.config import BadConfig, TrainConfig

__all__ = ["Group", "is_group", "join_group"]

log = logging.getLogger(__name__)

FOREVER = timedelta(days=365)
"""Whoever waits for orders waits as long as no actor comes; that a process has died shows in its connection."""
LAST_S = 5.0
"""After a broken connection, until the watch must have ended this process."""


def is_group() -> bool:
    """Whether torchrun started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def join_group() -> Iterator["Group"]:
    """This process among those that torchrun started; on leaving, all of them part in order.

    Where one of them dies meanwhile or leaves with an error, all end at once. Nothing is lost by that: it is no worse
    than a learner that is killed.
    """
    cards = torch.cuda.is_available()
    if cards:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo")
    group = Group()
    yield group
    group.close()


class Group:
    """The processes of this learner; the default process group of torch.distributed is theirs."""

    def __init__(self) -> None:
        self.ranks = Ranks(dist.get_rank(), dist.get_world_size())
        self._local_rank = int(os.environ["LOCAL_RANK"])
        self.on_this_machine = int(os.environ["LOCAL_WORLD_SIZE"])
        self._orders = dist.new_group(timeout=FOREVER, backend="gloo")
        self._watched = dist.new_group(timeout=FOREVER, backend="gloo")
        others = range(1, self.ranks.size) if self.ranks.rank == 0 else (0,)
        self._watches = {
            other: threading.Thread(target=self._watch, args=(other,), name=f"watch-{other}", daemon=True)
            for other in others
        }
        for watch in self._watches.values():
            watch.start()

    def with_own_device(self, config: TrainConfig) -> TrainConfig:
        """The configuration with this process's card in it.

        Raises:
            BadConfig: It names one card for all.
        """
        device = config.learner.device
        if device.startswith("cuda:"):
            raise BadConfig(
                f"--learner.device {device} with {self.ranks.size} processes: each takes a card of its own, so give "
                "--learner.device cuda (and choose cards with CUDA_VISIBLE_DEVICES)"
            )
        own = f"cuda:{self._local_rank}" if device == "cuda" else device
        return msgspec.structs.replace(config, learner=msgspec.structs.replace(config.learner, device=own))

    def send(self, message: bytes | bytearray) -> None:
        """From rank 0 to all others; nothing: it was the last message."""
        with self.at_one():
            dist.broadcast(torch.tensor(len(message)), 0, self._orders)
            if message:
                dist.broadcast(torch.frombuffer(message, dtype=torch.uint8), 0, self._orders)

    def receive(self) -> memoryview:
        """What rank 0 sends next."""
        with self.at_one():
            length = torch.tensor(0)
            dist.broadcast(length, 0, self._orders)
            message = torch.empty(int(length), dtype=torch.uint8)
            if length:
                dist.broadcast(message, 0, self._orders)
        return memoryview(message.numpy().data)

    @contextmanager
    def at_one(self) -> Iterator[None]:
        """Around what all do together. Where it fails since another process has died, the watch ends this one here,
        before it can leave behind what is only half done."""
        try:
            yield
        except RuntimeError:
            time.sleep(LAST_S)
            raise

    def close(self) -> None:
        """Says goodbye, and waits a little for that of the others: who is stuck is torchrun's to end."""
        for other in self._watches:
            dist.send(torch.zeros(1), other, self._watched)
        for watch in self._watches.values():
            watch.join(LAST_S)

    def _watch(self, other: int) -> None:
        """Waits for the other's goodbye; the kernel ends the connection of a process that dies without."""
        try:
            dist.recv(torch.zeros(1), other, self._watched)
        except RuntimeError:
            log.error(
                "process %d of the learner's %d has died, so this one (%d) ends as well; its own last words say why. "
                "Everything that actors were told to be kept is kept: go on with --resume",
                other, self.ranks.size, self.ranks.rank,
            )  # fmt: skip
            os._exit(1)
