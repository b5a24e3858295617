"""The commands: words.py says how they are typed, the other modules what they do."""
