"""Which colour and which mark an entry has in figures; scripts know the colours as roles of the page's styles."""

from __future__ import annotations

from collections.abc import Sequence

SERIES = 8  #: roles --series-0 to --series-7
#: marks as plotly calls them, and as characters
SYMBOLS = (
    ("circle", "\N{BLACK CIRCLE}"),
    ("square", "\N{BLACK SQUARE}"),
    ("diamond", "\N{BLACK DIAMOND}"),
    ("triangle-up", "\N{BLACK UP-POINTING TRIANGLE}"),
    ("star", "\N{BLACK STAR}"),
    ("triangle-down", "\N{BLACK DOWN-POINTING TRIANGLE}"),
    ("triangle-right", "\N{BLACK RIGHT-POINTING TRIANGLE}"),
    ("triangle-left", "\N{BLACK LEFT-POINTING TRIANGLE}"),
)


class Palette:
    """Colours by policy, marks by decoder: the same in all figures of a page."""

    def __init__(self, policies: Sequence[str], decoders: Sequence[str]) -> None:
        exact = list(dict.fromkeys(policies))
        # more specs than colours, as in a sweep: then a colour is a policy with any options
        self._by_family = len(exact) > SERIES
        self.policies = list(dict.fromkeys(map(_family, policies))) if self._by_family else exact
        self.decoders = list(dict.fromkeys(decoders))

    def series(self, policy: str) -> int:
        """The number of a policy's colour, from 0."""
        return self.policies.index(_family(policy) if self._by_family else policy) % SERIES

    def colour(self, policy: str) -> str:
        """The role of a policy's colour."""
        return f"--series-{self.series(policy)}"

    def symbol(self, decoder: str) -> str:
        """A decoder's mark, as plotly calls it."""
        return self._mark(decoder)[0]

    def legend(self) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
        """Policies with the numbers of their colours; if there are several decoders, they with their characters."""
        policies = [(policy, place % SERIES) for place, policy in enumerate(self.policies)]
        several = len(self.decoders) > 1
        return policies, [(decoder, self._mark(decoder)[1]) for decoder in self.decoders if several]

    def _mark(self, decoder: str) -> tuple[str, str]:
        return SYMBOLS[self.decoders.index(decoder) % len(SYMBOLS)]


def _family(policy: str) -> str:
    return policy.partition(":")[0]
