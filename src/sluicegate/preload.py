"""Imported once by the fork server, before any worker is forked: what is loaded here is shared by all workers."""

from sluicegate.adapters.counters import default_counter
from sluicegate.core import check  # noqa: F401  (the import is the purpose)
from sluicegate.service import assemble, collector  # noqa: F401

default_counter().count(["load the vocabulary now"], "o200k_base")
