"""Imported once by the fork server, before any worker is forked: what is loaded here is shared by all workers.

Short on purpose: a large check waits for it.
"""

from sluicegate.adapters import worker  # noqa: F401  (the import is the purpose)
from sluicegate.adapters.counters import default_counter
from sluicegate.service import scan  # noqa: F401

default_counter().count(["load the vocabulary now"], "o200k_base")
