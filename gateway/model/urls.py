"""URLs of configuration files: taken apart, and shown without what stands before the @."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def hide(url: str) -> str:
    """Return a URL that can be shown: without what stands before the @."""
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}***@{host.rpartition('@')[2]}{slash}{path}" if "@" in host else url


def split(url: str) -> SplitResult:
    """Return the parts of a URL; one that cannot be taken apart has no scheme, which every caller refuses."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def port_of(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        raise ValueError(f"url: got {hide(url)!r}, wanted a port from 1 to 65535") from None
