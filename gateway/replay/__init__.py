"""What was recorded, through the product again: captures through link and decode, all else through the detectors."""
