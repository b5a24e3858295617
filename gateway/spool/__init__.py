"""The durable queue between the poll and everything that may be away."""
