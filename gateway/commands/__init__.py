"""What each command does; gateway/cli.py has their words and options. Each imports only what it needs."""
