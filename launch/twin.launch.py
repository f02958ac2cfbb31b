"""A Franka that is simulated, its robot server and its bridge to ROS 2: `ros2 launch launch/twin.launch.py`."""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("task", default_value="FrankaPegInsert-v0", description="Whose scene is simulated."),
            DeclareLaunchArgument("ip", default_value="127.0.0.1", description="Address of the simulated arm."),
            DeclareLaunchArgument("namespace", default_value="/", description="Before the names of topics."),
            ExecuteProcess(
                cmd=[
                    "serl", "twin", "franka", "--port-ip", LaunchConfiguration("ip"),
                    "--task", LaunchConfiguration("task"),
                ],
                name="twin",
                output="screen",
                on_exit=Shutdown(reason="the twin has ended"),
            ),
            ExecuteProcess(
                cmd=["serl", "robot", "franka", "--ip", LaunchConfiguration("ip")],
                name="robot_server",
                output="screen",
                sigterm_timeout="15",
                respawn=True,  # the twin takes a moment to listen
                respawn_delay=2.0,
            ),
            ExecuteProcess(
                cmd=["serl", "ros2", "bridge", "--namespace", LaunchConfiguration("namespace")],
                name="bridge",
                output="screen",
                sigterm_timeout="10",
                respawn=True,
                respawn_delay=2.0,
            ),
        ]
    )  # fmt: skip
