"""The world around the arm in MuJoCo: table, light, cameras, and where the things on the table are."""

from collections.abc import Callable

import mujoco
import numpy as np
from serl_hardware.franka.model import COLLIDE_FIXTURE, COLLIDE_OBJECT, FINGER_JOINTS, add_franka

from serl_envs.robot import Array

__all__ = ["Scene", "add_free_box", "build_model"]

TABLE_HALF = (0.45, 0.6, 0.02)
TABLE_CENTRE = (0.55, 0.0, -0.02)


def build_model(add_objects: Callable[[mujoco.MjSpec], None]) -> mujoco.MjModel:
    """Compiles arm, table (its top is z = 0), lights, cameras and the task's objects."""
    spec = mujoco.MjSpec()
    spec.modelname = "franka_twin"
    option = spec.option
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    # Grasped things creep out of the fingers at the default ratio of 1.
    option.impratio = 10
    option.iterations = 20
    option.ls_iterations = 20
    option.tolerance = 1e-7
    # A NaN must surface as an error, not restart the simulation silently. Joint damping is 1e-5 of inertia over dt, so
    # treating it implicitly would buy nothing for a second factorisation of the inertia a tick.
    option.disableflags = mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_EULERDAMP
    add_franka(spec)
    _add_surroundings(spec)
    _add_lights_and_cameras(spec)
    add_objects(spec)
    return spec.compile()


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    spec.add_texture(
        name="floor", type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=(0.80, 0.82, 0.85), rgb2=(0.74, 0.76, 0.79), width=256, height=256,
    )  # fmt: skip
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.93, 0.95, 0.98), rgb2=(0.70, 0.77, 0.86), width=64, height=384,
    )  # fmt: skip
    floor = spec.add_material(name="floor", texrepeat=(6, 6), texuniform=True, reflectance=0.05)
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "floor"
    spec.add_material(name="table", rgba=(0.47, 0.55, 0.62, 1), specular=0.2, shininess=0.3)
    spec.add_material(name="steel", rgba=(0.55, 0.57, 0.6, 1), specular=0.6, shininess=0.7)
    world = spec.worldbody
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(4, 4, 0.1), pos=(0, 0, -0.75),
        material="floor", contype=0, conaffinity=0,
    )  # fmt: skip
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=TABLE_HALF, pos=TABLE_CENTRE, material="table",
        contype=0, conaffinity=COLLIDE_FIXTURE, friction=(0.6, 0.005, 1e-4),
    )  # fmt: skip
    for x in (0.15, 0.95):
        for y in (-0.55, 0.55):
            world.add_geom(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.025, 0.355, 0), pos=(x, y, -0.395),
                material="steel", contype=0, conaffinity=0,
            )  # fmt: skip
    world.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.16, 0.16, 0.375), pos=(-0.06, 0, -0.376),
        material="steel", contype=0, conaffinity=0,
    )  # fmt: skip


def _add_lights_and_cameras(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    far = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    world.add_light(
        type=far, pos=(1.2, -1.2, 2.2), dir=(-0.4, 0.35, -1), diffuse=(0.5, 0.5, 0.48), castshadow=True
    )
    world.add_light(
        type=far, pos=(0.2, 1.6, 1.8), dir=(0.1, -0.8, -1), diffuse=(0.2, 0.2, 0.22), castshadow=False
    )
    spec.visual.headlight.ambient = (0.32, 0.32, 0.33)
    spec.visual.headlight.diffuse = (0.3, 0.3, 0.3)
    spec.visual.headlight.specular = (0.1, 0.1, 0.1)
    spec.visual.quality.shadowsize = 2048
    spec.visual.quality.offsamples = 4
    spec.visual.global_.offwidth = 640
    spec.visual.global_.offheight = 640
    spec.visual.map.znear = 0.01
    _add_camera(world, "view", eye=(1.38, -0.92, 0.66), look_at=(0.33, 0.0, 0.27), fovy=38)
    _add_camera(world, "front", eye=(0.94, 0.0, 0.36), look_at=(0.50, 0.0, 0.06), fovy=42)


def _add_camera(
    world: mujoco.MjsBody, name: str, eye: tuple[float, ...], look_at: tuple[float, ...], fovy: float
) -> None:
    backward = np.subtract(eye, look_at)
    right = np.cross((0, 0, 1), backward)
    up = np.cross(backward, right)
    axes = np.concatenate([right / np.linalg.norm(right), up / np.linalg.norm(up)])
    world.add_camera(name=name, pos=eye, xyaxes=axes, fovy=fovy)


def add_free_box(
    spec: mujoco.MjSpec, name: str, half: tuple[float, ...], mass: float, rgba: tuple[float, ...]
) -> mujoco.MjsBody:
    """Adds a box that can be grasped, pushed and dropped; `half` are its half extents [m], `mass` in kg."""
    body = spec.worldbody.add_body(name=name, pos=(0.5, 0.0, half[2]))
    body.add_freejoint(name=name)
    body.add_geom(
        name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=half, mass=mass, rgba=rgba, condim=4,
        friction=(0.8, 0.01, 1e-4), contype=COLLIDE_FIXTURE, conaffinity=COLLIDE_OBJECT,
    )  # fmt: skip
    return body


class Scene:
    """Poses and contacts of the things in the world: what a task calls its state.

    Quaternions are xyzw here, as everywhere outside MuJoCo.
    """

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.model, self.data = model, data
        self._pads = [model.geom(f"{finger}_pad").id for finger in FINGER_JOINTS]
        self._position = {model.body(i).name: data.xpos[i] for i in range(model.nbody)}
        self._quaternion = {model.body(i).name: data.xquat[i] for i in range(model.nbody)}

    def pose(self, body: str) -> tuple[Array, Array]:
        """Returns the body's position [m] and quaternion (xyzw) in the base frame."""
        w, x, y, z = self._quaternion[body]
        return self._position[body].copy(), np.array([x, y, z, w])

    def place(self, body: str, position: Array, quaternion: Array) -> None:
        """Puts a free body at rest at a pose; a fixed body is moved for good (until placed again)."""
        wxyz = np.asarray(quaternion)[[3, 0, 1, 2]]
        index = self.model.body(body).id
        joint = self.model.body_jntadr[index]
        if joint >= 0:
            address, speed = self.model.jnt_qposadr[joint], self.model.jnt_dofadr[joint]
            self.data.qpos[address : address + 3], self.data.qpos[address + 3 : address + 7] = (
                position,
                wxyz,
            )
            self.data.qvel[speed : speed + 6] = 0.0
        else:
            self.model.body_pos[index], self.model.body_quat[index] = position, wxyz
        mujoco.mj_step1(self.model, self.data)

    def held(self, body: str) -> bool:
        """Whether both finger pads touch the body."""
        index = self.model.body(body).id
        pairs = self.data.contact.geom
        touching = set()
        for first, second in pairs:
            for pad, other in ((first, second), (second, first)):
                if pad in self._pads and self.model.geom_bodyid[other] == index:
                    touching.add(int(pad))
        return len(touching) == len(self._pads)
