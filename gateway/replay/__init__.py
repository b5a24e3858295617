"""What was recorded, through the product again: captures now; CSV, spools and databases are to follow as sources."""
