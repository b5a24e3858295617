"""The stores that keep samples: ingest writes them, the console reads them."""
