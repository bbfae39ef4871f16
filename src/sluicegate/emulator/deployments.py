"""What deployments there are, their enqueued-token limits now, and who holds tokens there that no list shows."""

from __future__ import annotations

import re
from typing import Final

from sluicegate.emulator.config import BATCH_TYPES, Account

LONG: Final = " (long context)"
"""Follows a deployment's name in the name of its queue for long contexts."""


class Deployments:
    """The deployments of one account.

    Attributes:
        unlisted: (from, until, tokens, deployment or None for all) of holders whom no list shows; Unix seconds.
    """

    def __init__(self, account: Account) -> None:
        self._known = {one.name: one for one in account.deployments}
        self._model_limits = account.model_limits
        self._long = account.long_limits
        self._limits: dict[str, int | None] = {
            one.name: one.limit for one in account.deployments if one.limit is not None
        }
        self._default = account.limit
        self.unlisted: list[tuple[float, float, int, str | None]] = []

    @property
    def names(self) -> list[str]:
        """Those that are configured, or have a limit of their own."""
        return list(dict.fromkeys([*self._known, *self._limits]))

    def limit(self, name: str) -> int | None:
        """The enqueued-token limit now, None for no limit."""
        if name in self._limits:
            return self._limits[name]
        if name.endswith(LONG):
            return next((one.limit for one in self._long if _is_of(name.removesuffix(LONG), one.model)), self._default)
        served = self._known[name].model or name if name in self._known else name
        named = [(len(model), limit) for model, limit in self._model_limits if served.startswith(model)]
        return max(named)[1] if named else self._default

    def queue(self, name: str, largest: int) -> str:
        """In which queue a batch counts: OpenAI has separate ones for requests with much input (F§3.5).

        Args:
            largest: Tokens of its largest line. That one long line moves the whole batch is a choice.
        """
        long = any(_is_of(name, one.model) and largest > one.above for one in self._long)
        return name + LONG if long else name

    def set_limit(self, limit: int | None, name: str | None) -> None:
        """Change a deployment's limit, or everybody's."""
        if name is None:
            self._default = limit
            self._limits = dict.fromkeys(self._limits, limit)
        else:
            self._limits[name] = limit

    def exists(self, name: str) -> bool:
        """Whether there is such a deployment; where none are configured, there is any."""
        return not self._known or name in self._known

    def refused_type(self, name: str) -> str | None:
        """The deployment's type if it is not one for batches."""
        kind = self._known[name].type if name in self._known else None
        return None if kind in BATCH_TYPES else kind

    def dead(self, name: str) -> bool:
        """Whether its batches stay where they are for ever."""
        return name in self._known and self._known[name].dead

    def hold(self, now: float, tokens: int, for_s: float, name: str | None) -> None:
        """Somebody whom no list shows holds tokens from now."""
        self.unlisted.append((now, now + for_s, tokens, name))

    def held_unlisted(self, name: str, now: float) -> int:
        """Tokens that such holders hold."""
        return sum(
            tokens for start, stop, tokens, where in self.unlisted if start <= now < stop and where in (None, name)
        )  # fmt: skip

    def leave(self, now: float) -> None:
        """Holders whose time is over are gone."""
        self.unlisted = [one for one in self.unlisted if one[1] > now]


def _is_of(name: str, model: str) -> bool:
    """Whether a name is the model's or that of one of its versions, as ``gpt-4.1-2025-04-14``."""
    return re.fullmatch(re.escape(model) + r"(-\d{4}-.*)?", name) is not None
