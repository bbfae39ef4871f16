"""The gateway over HTTP: the Batch API that queues instead of refusing, in all three URL families.

``dialects`` speaks each family's envelope; ``auth`` knows callers; ``files``, ``batches`` and ``quota`` answer from our
rows and never call a provider (D6); ``app`` puts them together and ``serve`` keeps them up.
"""
