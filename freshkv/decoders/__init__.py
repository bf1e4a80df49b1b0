"""Built-in decoders: a decoder registers by being in this folder.

``freshkv.decoders()`` gives name to class of all decoders, built-in and plugin, so the folder can be called.
"""

import sys
from types import MappingProxyType, ModuleType

from freshkv.core import registry
from freshkv.core.decoder import Decoder


class _Folder(ModuleType):
    def __call__(self) -> MappingProxyType[str, type[Decoder]]:
        return registry.decoders()


sys.modules[__name__].__class__ = _Folder
