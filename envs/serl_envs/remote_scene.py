"""The scene of a wire twin, seen from another process. Simulation only: it knows the truth, which no camera does."""

import time
from contextlib import suppress

import mujoco
import numpy as np
import zmq

from serl_envs.robot import Array
from serl_envs.tasks.task import Task
from serl_envs.twins.fci.scene_messages import (
    MAX_MESSAGE_BYTES,
    AnyRequest,
    Place,
    Refused,
    RunUntil,
    SceneState,
    ShowScene,
    decode_answer,
    encode,
)
from serl_envs.twins.scene import Scene, build_model
from serl_suite.errors import SerlError
from serl_suite.wire.endpoint import connect_dealer
from serl_suite.wire.messages import WireError

__all__ = ["OtherScene", "RemoteScene", "SceneRefused", "TwinUnreachable"]

ANSWER_S = 3.0


class TwinUnreachable(SerlError):
    """No wire twin answers; says how to start one."""


class OtherScene(SerlError):
    """The wire twin has the scene of another task."""


class SceneRefused(SerlError):
    """The wire twin did not do what was asked; it says why."""


class RemoteScene(Scene):
    """A copy of the twin's scene as it was when `look` was called last, with poses and contacts of its own.

    Args:
        task: Whose things stand there.
        task_id: Its id, which the twin was started with.
        address: Of the scene's channel, tcp://HOST:1339.

    Raises:
        AddressError: The address is none, or on another machine.
        TwinUnreachable: No twin answers there.
        OtherScene: Its scene is another task's.
    """

    def __init__(self, task: Task, task_id: str, address: str) -> None:
        model = build_model(task.add_objects)
        super().__init__(model, mujoco.MjData(model))
        self._task_id, self._address = task_id, address
        self._number = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = connect_dealer(self._context, address, None, MAX_MESSAGE_BYTES)
        try:
            self.look()
        except SerlError:
            self.close()
            raise

    def look(self) -> None:
        """Takes over where everything is now.

        Raises:
            TwinUnreachable: The twin has ended.
        """
        self._ask(ShowScene(number=self._next()))

    def place(self, body: str, position: Array, quaternion: Array) -> None:
        """Puts a thing there, in the twin.

        Raises:
            SceneRefused: There is no such thing, or the pose is none.
            TwinUnreachable: The twin has ended.
        """
        x, y, z = map(float, position)
        qx, qy, qz, qw = map(float, quaternion)
        self._ask(Place(number=self._next(), body=body, position=(x, y, z), quaternion=(qx, qy, qz, qw)))

    def run_until(self, time_s: float | None) -> None:
        """In lockstep: lets robot time pass until then; None: as it will.

        Raises:
            TwinUnreachable: The twin has ended.
        """
        self._ask(RunUntil(number=self._next(), time_s=time_s))

    def close(self) -> None:
        """Leaves; time passes again. Twice is once."""
        self._socket.close(0)
        self._context.term()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, request: AnyRequest) -> None:
        with suppress(zmq.Again):  # a full queue: nobody answers either
            self._socket.send(encode(request), zmq.NOBLOCK)
        deadline = time.monotonic() + ANSWER_S
        while (left_s := deadline - time.monotonic()) > 0 and self._socket.poll(int(left_s * 1e3) + 1):
            try:
                answer = decode_answer(self._socket.recv())
            except WireError as error:
                raise TwinUnreachable(f"what answers at {self._address} is no wire twin: {error}") from error
            if answer.number != request.number:
                continue
            if isinstance(answer, Refused):
                raise SceneRefused(f"the twin refused: {answer.reason}")
            self._take(answer)
            return
        host = self._address.removeprefix("tcp://").rpartition(":")[0]
        raise TwinUnreachable(
            f"no wire twin answers at {self._address}; start it: serl twin franka --port-ip {host} "
            f"--task {self._task_id}"
        )

    def _take(self, state: SceneState) -> None:
        if state.task != self._task_id:
            raise OtherScene(
                f"the twin at {self._address} has the scene of {state.task}, not of {self._task_id}; start it again "
                f"with --task {self._task_id}"
            )
        model, data = self.model, self.data
        for name, mine, values in (
            ("qpos", data.qpos, state.qpos),
            ("body_pos", model.body_pos, state.body_pos),
            ("body_quat", model.body_quat, state.body_quat),
        ):
            if len(values) != mine.size:
                raise OtherScene(
                    f"the twin's {name} has {len(values)} numbers and not {mine.size}: it runs another version of "
                    f"{state.task}; install the same on both sides"
                )
            mine[...] = np.reshape(values, mine.shape)
        mujoco.mj_step1(model, data)
        self.is_lockstep, self.time_s = state.lockstep, state.time_s
