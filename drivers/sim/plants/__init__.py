"""What stands in the field, as functions of time: each module knows the points of one kind of plant."""
