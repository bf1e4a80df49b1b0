"""Who waits, who is being decoded, and who is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import frozen

from freshkv.core.request import Request

#: requests that fail before any has finished, when it must be the model
HOPELESS = 8


@frozen
class Numbered:
    """A request and its place among all."""

    index: int
    request: Request


class RequestQueue:
    """Requests in the order in which they are served."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._waiting = deque(Numbered(index, request) for index, request in enumerate(requests))
        self._under_way: list[Numbered] = []
        self.finished = 0  #: how many are done
        self.failed: list[str] = []  #: requests that were given up, in words

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @property
    def waiting(self) -> list[Request]:
        """In their order."""
        return [numbered.request for numbered in self._waiting]

    @property
    def under_way(self) -> list[int]:
        """The places of those that were taken and have not finished, in the order in which they were taken."""
        return [numbered.index for numbered in self._under_way]

    def take(self, most: int) -> list[Numbered]:
        """The next ones, at most ``most``."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._under_way += taken
        return taken

    def finish(self, index: int) -> None:
        """That one is done."""
        self._leave(index)
        self.finished += 1

    def give_up(self, index: int, where: str) -> None:
        """That one failed alone; ``where`` says which it is, and when."""
        self._leave(index)
        self.failed.append(where)

    @property
    def is_hopeless(self) -> bool:
        """Whether so many have failed, and none has finished, that the others would fail, too."""
        return self.finished == 0 and len(self.failed) >= HOPELESS

    def _leave(self, index: int) -> None:
        self._under_way = [numbered for numbered in self._under_way if numbered.index != index]

    def put_back(self) -> int:
        """Those under way wait again, before all others. How many they are."""
        returned, self._under_way = self._under_way, []
        self._waiting.extendleft(reversed(returned))
        return len(returned)
