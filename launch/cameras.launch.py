"""The camera server of a rig: `ros2 launch launch/cameras.launch.py rig:=hardware/rigs/fr3.yaml`.

It ends by itself where the rig cannot be used; a camera that is missing is none of that, and is opened when it comes.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("rig", default_value="hardware/rigs/fr3.yaml", description="The rig's file."),
            ExecuteProcess(
                cmd=["serl", "camera", "serve", "--rig", LaunchConfiguration("rig")],
                name="camera_server",
                output="screen",
                additional_env={"OMP_NUM_THREADS": "1"},
                sigterm_timeout="10",
            ),
        ]
    )  # fmt: skip
