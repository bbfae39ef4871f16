"""Sluicegate: any amount of work through the Batch API, never over the enqueued-token limit."""

__version__ = "0.1.0"
