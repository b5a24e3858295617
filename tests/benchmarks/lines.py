"""lines: the text of a frame, beside `repr` of every value and one `%r` template per device."""

from __future__ import annotations

import numpy as np

from gateway.wire.frame_lines import LineWriter, scan_texts
from gateway.wire.lines import parse_lines
from tests.benchmarks import rig

TIME_NS = 1_764_000_000_123_000_000


def measure(*, n_values: int = rig.VALUES, seconds: float = 0.3, n_rounds: int = 5) -> dict[str, float]:
    """Return the time per value for scaled integers and for float32 as meters send them."""
    out: dict[str, float] = {}
    rng = np.random.default_rng(43)
    for kind, label in (("uint16", "decimal"), ("float32", "float32")):
        text = scan_texts(rig.table(1, min(n_values, 62) if kind == "float32" else n_values, kind, scale=_scale(kind)))[
            0
        ]
        n = len(text.names)
        value = np.round(rng.uniform(0, 6000, n), 1)
        if kind == "float32":
            value = rng.uniform(0, 6000, n).astype(np.float32).astype(np.float64)
        quality, writer, names = np.zeros(n, np.uint32), LineWriter(text), text.names
        template = text.prefix + ",".join(f"{name}=%r" for name in names) + " %d\n"

        def kernel(writer: LineWriter = writer, value: np.ndarray = value, quality: np.ndarray = quality) -> bytes:
            return writer.line(value, quality, TIME_NS)

        def by_repr(text: str = text.prefix, names: tuple[str, ...] = names, value: np.ndarray = value) -> bytes:
            fields = [f"{name}={v!r}" for name, v in zip(names, value.tolist(), strict=True)]
            return (text + ",".join(fields) + f" {TIME_NS}\n").encode()

        def by_template(template: str = template, value: np.ndarray = value) -> bytes:
            return (template % (*value.tolist(), TIME_NS)).encode()

        read = [list(next(parse_lines(work())).fields.values()) for work in (kernel, by_repr, by_template)]
        as_read = [np.array(fields, np.float32 if kind == "float32" else np.float64) for fields in read]
        assert all((fields == value.astype(fields.dtype)).all() for fields in as_read)
        works = {"kernel": kernel, "repr": by_repr, "template": by_template}
        contest = {name: lambda work=work, n=n: rig.ns_per_call(work, seconds) / n for name, work in works.items()}
        found = rig.medians(contest, n_rounds)
        out |= {
            f"{label}_ns_per_value": found["kernel"],
            f"{label}_repr_ns_per_value": found["repr"],
            f"{label}_template_ns_per_value": found["template"],
            f"{label}_ratio_repr": found["kernel"] / found["repr"],
            f"{label}_ratio_template": found["kernel"] / found["template"],
            f"{label}_bytes_per_value": len(kernel()) / n,
            f"{label}_template_bytes_per_value": len(by_template()) / n,
        }
    return out


def _scale(kind: str) -> float:
    return 0.1 if kind == "uint16" else 1.0
