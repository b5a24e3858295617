"""Planning reads and polling them on time."""
