"""The device side: profiles, links and decoding; never imports gateway."""
