"""The demo corridor: its sites, and how everything is started beside them."""
