"""Towards the broker: live frames at once, the backlog beside them, nothing twice on purpose."""
