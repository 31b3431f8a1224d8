"""TinyVLA as a policy of LeRobot.

LeRobot imports this package when it is installed, and then knows `--policy.type=tinyvla`. The model is
`tinyvla.TinyVLA` itself; nothing of it is written here a second time.
"""

try:
    import lerobot  # noqa: F401
except ImportError:
    raise ImportError(
        "lerobot is not installed; this package makes TinyVLA a policy of it: pip install lerobot"
    ) from None

from .configuration_tinyvla import TinyVLAConfig
from .convert import from_lerobot, to_lerobot
from .modeling_tinyvla import TinyVLAPolicy
from .processor_tinyvla import make_tinyvla_pre_post_processors

__all__ = ["TinyVLAConfig", "TinyVLAPolicy", "from_lerobot", "make_tinyvla_pre_post_processors", "to_lerobot"]
