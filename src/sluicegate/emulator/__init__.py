"""The provider's Batch API on one's own machine: its limits, its refusals, its delays.

``model`` decides, given clock and seed; ``files`` reads and writes; ``server`` speaks HTTP. The books here are kept with
tiktoken and rules of their own, never with Sluicegate's estimator: two accountants that must agree (docs/design.md).
"""
