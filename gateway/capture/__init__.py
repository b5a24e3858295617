"""Raw traffic around faults and events, kept as files that `corridor replay` plays again."""
