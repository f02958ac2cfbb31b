"""The other processes of a learner: each does what the first one does, on a share of every batch.

They have no socket, no journal and no run folder; the first one tells them all that they need.
"""

import os
import signal
import threading
from types import FrameType

import safetensors.torch

from serl_suite.networks.host import check_device, tune_host
from serl_suite.nodes.group import Group
from serl_suite.nodes.orders import Begin, Fit, Insert, Load, Order, Update, decode_step, receive_orders
from serl_suite.nodes.training import Training
from serl_suite.wire.codec import Codec

__all__ = ["follow"]

LAST_S = 20.0
"""After a signal, for the first process to end the training in order; torchrun kills after 30."""


def follow(group: Group) -> None:
    """Does what rank 0 says, until it says that training is over.

    Raises:
        DeviceUnavailable: This process has no card of its own.
    """
    _leave_signals_to_the_first()
    follower = _Follower(group)
    for order, parts in receive_orders(group):
        follower.obey(order, parts)


class _Follower:
    def __init__(self, group: Group) -> None:
        self._group, self._codec = group, Codec()
        self._training: Training | None = None

    def obey(self, order: Order, parts: list[memoryview]) -> None:
        """Does one thing."""
        if isinstance(order, Begin):
            self._training = self._begin(order)
        else:
            assert self._training is not None, "Begin comes first"
            self._train(self._training, order, parts)

    def _begin(self, order: Begin) -> Training:
        config = self._group.with_own_device(order.config)
        tune_host(config.learner.threads)
        check_device(config.learner.device)
        return Training(
            order.spec,
            config,
            order.demonstrated,
            ranks=self._group.ranks,
            on_this_machine=self._group.on_this_machine,
        )

    def _train(self, training: Training, order: Order, parts: list[memoryview]) -> None:
        match order:
            case Insert():
                step = decode_step(self._codec, parts)
                take = training.insert if order.into == "online" else training.demonstrate
                take(order.session_id, step)
            case Fit():
                training.fit_normaliser()
            case Load():
                state = safetensors.torch.load(bytes(parts[0]))
                training.load(state, order.online_rng, order.demos_rng)
            case Update():
                with self._group.at_one():
                    training.update()


def _leave_signals_to_the_first() -> None:
    """A Ctrl-C reaches every process; this one goes on until the first has come to an end with it."""

    def handle(number: int, frame: FrameType | None) -> None:
        timer = threading.Timer(LAST_S, os._exit, (1,))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
