"""The twin's end of the scene's channel: shows and places things, and lets time pass in lockstep."""

import logging
import math
from contextlib import suppress

import numpy as np
import zmq
from serl_hardware.franka.model import TIMESTEP_S
from zmq.utils.monitor import recv_monitor_message

from serl_envs.twins.fci.arm import Arm
from serl_envs.twins.fci.scene_messages import (
    MAX_MESSAGE_BYTES,
    PORT,
    AnyRequest,
    Place,
    Refused,
    RunUntil,
    SceneState,
    decode_request,
    encode,
)
from serl_envs.twins.scene import Scene
from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import PortInUse, bind_router
from serl_suite.wire.messages import WireError

__all__ = ["SceneChannel"]

FURTHEST_M = 2.0
"""Nothing is placed further away than this along any axis."""

_log = logging.getLogger(__name__)


class _Refusal(SerlError):
    """What was asked is not done."""


class SceneChannel:
    """Answers between two ticks, in the thread of the twin.

    Whoever makes time stand still has to stay connected: once that client has gone, it passes again.

    Args:
        arm: In its scene.
        address: IPv4 address, of this machine only.
        task: Id of the scene's task.
        lockstep: Whether time can stand still.

    Raises:
        AddressError: Other machines can reach the address.
        PortInUse: Another process listens there.
    """

    def __init__(self, arm: Arm, address: str, task: str, *, lockstep: bool) -> None:
        self._arm, self._task, self._lockstep = arm, task, lockstep
        model = arm.plant.model
        self._scene = Scene(model, arm.plant.data)
        robot = model.body_rootid[model.body("hand").id]
        self._things = [model.body(i).name for i in range(1, model.nbody) if model.body_rootid[i] != robot]
        self._until_ms: int | None = None
        self._holder = -1
        """Descriptor of the connection of the client that said how far time may pass."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._router, _ = bind_router(self._context, f"tcp://{address}:{PORT}", None, MAX_MESSAGE_BYTES)
        except PortInUse as error:
            self._context.term()
            raise PortInUse(
                f"can't listen at {address}:{PORT}; another twin there? Take 127.0.0.2, ..."
            ) from error
        self._departures = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.fds = [int(self._router.FD), int(self._departures.FD)]
        """Readable once when there is something to answer: until `answer` has answered all."""

    @property
    def stands(self) -> bool:
        """Whether time is to stand still until a client says more."""
        return self._until_ms is not None and self._now_ms() >= self._until_ms

    def answer(self) -> None:
        """Answers all that has come."""
        while int(self._departures.get(zmq.EVENTS)) & zmq.POLLIN:
            if recv_monitor_message(self._departures)["value"] == self._holder:
                self._until_ms = None
        while int(self._router.get(zmq.EVENTS)) & zmq.POLLIN:
            identity, *frames = self._router.recv_multipart(copy=False)
            try:
                if len(frames) != 1:
                    raise WireError(f"{len(frames)} frames instead of one")
                request = decode_request(frames[0].bytes)
            except WireError as error:
                _log.warning("dropped a message: %s", error)
                continue
            try:
                self._handle(request, int(frames[0].get(zmq.SRCFD)))
                answer = encode(self._state(request.number))
            except _Refusal as refusal:
                answer = encode(Refused(number=request.number, reason=str(refusal)))
            with suppress(zmq.ZMQError):  # it has gone, or reads nothing
                self._router.send_multipart([identity, answer], zmq.NOBLOCK)

    def close(self) -> None:
        """Lets the address go."""
        self._router.disable_monitor()
        self._router.close(0)
        self._context.destroy(0)

    def _handle(self, request: AnyRequest, connection: int) -> None:
        match request:
            case Place():
                self._place(request)
            case RunUntil() if self._lockstep:
                until_s, self._holder = request.time_s, connection
                self._until_ms = None if until_s is None else round(until_s / TIMESTEP_S)

    def _place(self, request: Place) -> None:
        if request.body not in self._things:
            raise _Refusal(
                f"no thing {request.body!r} in {self._task}; it has {', '.join(self._things) or 'none'}"
            )
        if max(map(abs, request.position)) > FURTHEST_M:
            raise _Refusal(
                f"{request.position} is out of the scene, which ends {FURTHEST_M:g} m from the arm"
            )
        norm = math.hypot(*request.quaternion)
        if abs(norm - 1.0) > 1e-3:
            raise _Refusal(f"the quaternion has norm {norm:.4f}; normalise it (x, y, z, w)")
        self._scene.place(request.body, np.array(request.position), np.array(request.quaternion))
        self._arm.plant.look()

    def _state(self, number: int) -> SceneState:
        plant = self._arm.plant
        return SceneState(
            number=number, task=self._task, lockstep=self._lockstep, time_s=self._now_ms() * TIMESTEP_S,
            qpos=plant.data.qpos.tolist(), body_pos=plant.model.body_pos.ravel().tolist(),
            body_quat=plant.model.body_quat.ravel().tolist(),
        )  # fmt: skip

    def _now_ms(self) -> int:
        return int(self._arm.telemetry.packet["message_id"])
