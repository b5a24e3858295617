"""What crosses MQTT, for every process: topics, payloads and the client."""
