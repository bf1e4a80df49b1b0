"""What plugin authors test with: hypothesis strategies, tiny random networks, and wrappers of policies and networks.

Needs ``hypothesis`` (``pip install 'freshkv[testing]'``); nothing else of freshkv imports this package.
"""

from freshkv.testing.networks import NetworkShape, tiny_network
from freshkv.testing.problems import Problem
from freshkv.testing.watched import WatchedNetwork
from freshkv.testing.wrapping import refreshing_everything, wrapped

__all__ = ["NetworkShape", "Problem", "WatchedNetwork", "refreshing_everything", "tiny_network", "wrapped"]
