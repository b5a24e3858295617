"""Files that a configuration names: are they there, are they secret, do certificates load; opens no socket."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn


def fault(path: Path, *, secret: bool) -> str | None:
    """Return what is wrong with a file, None when it can be read; a secret one must be its owner's alone."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return "is not a file"
        path.open("rb").close()
    except OSError as error:
        return error.strerror or str(error)
    if secret and mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"others may read it (mode {stat.S_IMODE(mode):04o}), wanted 0600 or 0400"
    return None


def first_line(path: Path) -> str | None:
    """Return the first line of a readable file, None when it holds none."""
    try:
        return path.read_text().strip().splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError):
        return None


def tls_faults(ca: Path | None, cert: Path | None, key: Path | None) -> Iterator[tuple[str, str]]:
    """Yield (key of the configuration, what is wrong) of readable files that ssl cannot use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unusable = set()
    for name, path in (("ca_file", ca), ("cert_file", cert)):
        if path:
            try:
                context.load_verify_locations(path)
            except (OSError, ValueError):
                unusable.add(name)
                yield name, "holds no certificate, wanted PEM"
    if cert and key and "cert_file" not in unusable:
        try:
            context.load_cert_chain(cert, key, _refuse)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None)
            yield "key_file", _REASONS.get(reason, f"ssl refuses it with cert_file: {reason}")


_REASONS: Final[dict[str | None, str]] = {
    None: "holds no private key, wanted PEM without a passphrase",
    "KEY_VALUES_MISMATCH": "belongs to another certificate, wanted the key of cert_file",
}


def _refuse() -> NoReturn:
    raise ValueError("nobody is there to type a passphrase")
