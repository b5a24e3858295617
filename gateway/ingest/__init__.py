"""From the broker into a store, acknowledged after the write, with a ledger of what is stored."""
