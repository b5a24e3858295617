"""The words of the gateway: configuration, corridor, frame, clock."""
