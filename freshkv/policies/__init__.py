"""Built-in cache policies: a policy registers by being in this folder.

``freshkv.policies()`` gives name to class of all policies, built-in and plugin, so the folder can be called.
"""

import sys
from types import MappingProxyType, ModuleType

from freshkv.core import registry
from freshkv.core.policy import CachePolicy


class _Folder(ModuleType):
    def __call__(self) -> MappingProxyType[str, type[CachePolicy]]:
        return registry.policies()


sys.modules[__name__].__class__ = _Folder
