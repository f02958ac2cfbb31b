"""An arm to control: seven joints with the kinematics and inertias of an FR3, integrated by Runge-Kutta, no gravity.

The laws under test know nothing of it; `pinocchio` computes its dynamics, so no code is shared with them.
"""

from dataclasses import dataclass, field

import numpy as np
import pinocchio as pin
import pytest

from serl_suite.control import JointLimits

# origin xyz, roll in quarter turns, mass, centre of mass, inertia (xx yy zz xy xz yz) about it; rounded figures
LINKS = [
    ((0, 0, 0.333), 0, 2.927, (0, -0.0181, -0.0386), (0.0239, 0.0225, 0.0064, 0, -0.0001, -0.002)),
    ((0, 0, 0), -1, 2.936, (0.0032, -0.0743, 0.0088), (0.0419, 0.0251, 0.0617, 0.0002, 0.0041, -0.0042)),
    ((0, -0.316, 0), 1, 2.245, (0.0407, -0.0048, -0.029), (0.0241, 0.0197, 0.019, 0.0024, -0.0029, -0.0021)),
    ((0.0825, 0, 0), 1, 2.616, (-0.0459, 0.063, -0.0085), (0.0345, 0.0289, 0.0413, 0.0132, 0.0101, -0.001)),
    ((-0.0825, 0.384, 0), -1, 2.327, (-0.0016, 0.0293, -0.0973), (0.0516, 0.0479, 0.0164, -0.0057, -0.0036, 0.0107)),
    ((0, 0, 0), 1, 1.817, (0.0597, -0.041, -0.0102), (0.0054, 0.0141, 0.0161, 0.0062, 0.0014, -0.0013)),
    ((0.088, 0, 0), 1, 1.357, (-0.003, 0.004, 0.06), (0.0085, 0.0085, 0.0022, 0, 0, 0)),
]  # fmt: skip
TCP_Z = 0.2104  # behind the last joint, hand included
READY = np.array([0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854])
LIMITS = JointLimits(
    lower=np.array([-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196]),
    upper=np.array([2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196]),
    max_velocity=np.array([2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26]),
    max_torque=np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]),
)


def _build() -> pin.Model:
    model = pin.Model()
    model.gravity.linear[:] = 0.0
    parent = 0
    for i, (xyz, quarters, mass, com, (xx, yy, zz, xy, xz, yz)) in enumerate(LINKS):
        placement = pin.SE3(pin.rpy.rpyToMatrix(quarters * np.pi / 2, 0.0, 0.0), np.array(xyz, dtype=float))
        parent = model.addJoint(parent, pin.JointModelRZ(), placement, f"joint{i + 1}")
        inertia = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        model.appendBodyToJoint(
            parent, pin.Inertia(mass, np.array(com, dtype=float), inertia), pin.SE3.Identity()
        )
    tcp = pin.SE3(np.eye(3), np.array([0.0, 0.0, TCP_Z]))
    model.addFrame(pin.Frame("tcp", parent, tcp, pin.FrameType.OP_FRAME))
    return model


@dataclass
class Arm:
    """State and dynamics; `tau` is the torque held since the last tick, which a robot would echo."""

    q: np.ndarray = field(default_factory=READY.copy)
    dq: np.ndarray = field(default_factory=lambda: np.zeros(7))
    tau: np.ndarray = field(default_factory=lambda: np.zeros(7))
    model: pin.Model = field(default_factory=_build)

    def __post_init__(self) -> None:
        self.data = self.model.createData()
        self.frame = self.model.getFrameId("tcp")

    def measure(self):
        """TCP position, quaternion xyzw, Jacobian (linear first, base frame) and mass matrix."""
        jacobian = pin.computeFrameJacobian(
            self.model, self.data, self.q, self.frame, pin.LOCAL_WORLD_ALIGNED
        )
        mass = np.tril(pin.crba(self.model, self.data, self.q).T)
        mass = mass + np.tril(mass, -1).T
        pose = pin.updateFramePlacement(self.model, self.data, self.frame)
        return (
            pose.translation.copy(),
            pin.Quaternion(pose.rotation).coeffs().copy(),
            np.ascontiguousarray(jacobian),
            mass,
        )

    def kinetic(self) -> float:
        return float(pin.computeKineticEnergy(self.model, self.data, self.q, self.dq))

    def step(self, tau: np.ndarray, dt: float = 1e-3, tau_external: np.ndarray | None = None) -> None:
        """Holds the torque for `dt` (RK4); what it did is in `q`, `dq`, and `tau` echoes it."""
        self.tau = tau.copy()
        total = tau if tau_external is None else tau + tau_external

        def rate(q, dq):
            return pin.aba(self.model, self.data, q, dq, total).copy()

        q, v = self.q, self.dq
        a1 = rate(q, v)
        v2 = v + 0.5 * dt * a1
        a2 = rate(q + 0.5 * dt * v, v2)
        v3 = v + 0.5 * dt * a2
        a3 = rate(q + 0.5 * dt * v2, v3)
        v4 = v + dt * a3
        a4 = rate(q + dt * v3, v4)
        self.q = q + dt / 6.0 * (v + 2 * v2 + 2 * v3 + v4)
        self.dq = v + dt / 6.0 * (a1 + 2 * a2 + 2 * a3 + a4)


@pytest.fixture(scope="session")
def arm_model() -> pin.Model:
    return _build()


@pytest.fixture
def arm(arm_model) -> Arm:
    """An arm at rest in its ready pose."""
    return Arm(model=arm_model)


@pytest.fixture(scope="session")
def make_arm(arm_model):
    """For hypothesis, which needs a fresh arm in each example."""
    return lambda: Arm(model=arm_model)


@pytest.fixture(scope="session")
def limits() -> JointLimits:
    return LIMITS
