"""Commands about meter profiles: list, show, lint, import, export."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final

from gateway.commands.terminal import DONE, refuse, say

STANDARD_OUTPUT: Final = Path("-")
OWN: Final = Path("profiles")  # of the user, in the folder where the command is typed


def list_all(options: argparse.Namespace) -> int:
    """Print all profiles that can be used, and what is wrong with the others."""
    from drivers import profile

    rows, code = [], DONE
    for name in profile.names((OWN,)):
        try:
            rows.append(profile.find(name, (OWN,)))
        except profile.ProfileError as error:
            code = refuse(error.lines)
    if options.json:
        keys = ("name", "vendor", "model", "measurement", "grade", "source")
        print(json.dumps([{**{key: getattr(p, key) for key in keys}, "points": len(p.points)} for p in rows]))
        return code
    print(f"{'profile':<28} {'grade':<5} {'points':>6}  {'measurement':<18} meter")
    for p in rows:
        print(f"{p.name:<28} {p.grade:<5} {len(p.points):>6}  {p.measurement:<18} {p.vendor} {p.model}")
    return code


def show(options: argparse.Namespace) -> int:
    """Print one profile with its points."""
    from drivers import profile

    try:
        path = Path(options.name)
        found = profile.load(path) if path.suffix == ".toml" else profile.find(options.name, (OWN,))
    except profile.ProfileError as error:
        return refuse(error.lines)
    if options.json:
        print(json.dumps(dataclasses.asdict(found)))
        return DONE
    print(f"{found.vendor} {found.model}, measurement {found.measurement}, grade {found.grade}\nsource: {found.source}")
    for quirk in found.quirks:
        print(f"note: {quirk}")
    for expected in found.expect:
        print(f"expects: {expected.point} {expected}")
    if area := found.scan_list:
        print(f"scan list: {area.function}, {area.count} from {area.start}, shown {area.step} each from {area.values}")
    print(f"\n{'point':<28} {'function':<8} {'address':>7} {'type':<10} {'order':<6} {'scale':>8} {'unit':<8} kind")
    for p in found.points:
        print(
            f"{p.name:<28} {p.function:<8} {p.address:>7} {p.type:<10} {p.word_order:<6} {p.scale:>8g} {p.unit:<8}"
            f" {p.kind}"
        )
    return DONE


def lint(options: argparse.Namespace) -> int:
    """Print what a careful reader would question."""
    from drivers import profile

    code = DONE
    for name in options.names or profile.names():
        try:
            found = profile.load(Path(name)) if name.endswith(".toml") else profile.find(name, (OWN,))
        except profile.ProfileError as error:
            code = refuse(error.lines)
            continue
        for note in profile.lint(found):
            print(f"{found.name}: {note}")
    return code


def import_csv(options: argparse.Namespace) -> int:
    """Make a profile from a spreadsheet."""
    from drivers import profile

    keys = ("vendor", "model", "measurement", "source", "grade")
    about: dict[str, Any] = {key: value for key in keys if (value := getattr(options, key)) is not None}
    if options.enron:
        about["enron"] = True
    out = options.out or OWN / f"{options.file.stem}.toml"
    if wrong := _name_fault(out):
        return refuse([wrong])
    try:
        text = profile.import_csv(options.file, about)
    except profile.ProfileError as error:
        return refuse(error.lines)
    return _put(text, out, force=options.force)


def export(options: argparse.Namespace) -> int:
    """Write the profile of a device with what it has taught."""
    from drivers import profile
    from drivers.toml import near, shown
    from gateway.acquire.memory import Memory
    from gateway.acquire.plan import plan
    from gateway.model.config import ConfigError, load_gateway, state_dir

    out = options.out or STANDARD_OUTPUT
    if wrong := _name_fault(out):
        return refuse([wrong])
    try:
        spec = load_gateway(options.config)
    except ConfigError as error:
        return refuse(error.lines)
    names = [device.name for device in spec.devices]
    if options.device not in names:
        wanted = f"wanted one of {', '.join(names)}{near(options.device, names)}"
        return refuse([f"{options.config}: no device {shown(options.device)}, {wanted}"])
    one = plan(spec, Memory(spec, state_dir(options.state, spec.id))).devices[names.index(options.device)]
    device, learnt = one.device, one.learnt
    if device.profile:
        meter = profile.find(device.profile, (options.config.parent / "profiles",))
    else:
        where = str(options.config)
        meter = profile.Profile("", "", device.name, device.measurement, where, "C", device.points)
    most = learnt.max_registers or meter.max_registers, learnt.max_bits or meter.max_bits
    return _put(profile.export(meter, one.holes(), *most), out, force=options.force)


def _put(text: str, out: Path, *, force: bool) -> int:
    """Write a profile; one that is there already only where it is the same, or told so."""
    if out == STANDARD_OUTPUT:
        print(text, end="")
        return DONE
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if not force and out.exists() and out.read_bytes() != text.encode():
            return refuse([f"{out}: is there already with other content, wanted another --out FILE, or --force"])
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        return refuse([f"{out}: cannot be written: {error.strerror}"])
    say(f"{out}: {text.count('{name =')} points; now look it over: `corridor profile lint {out}`")
    return DONE


def _name_fault(path: Path) -> str:
    """Return why no configuration could name the profile in this file, "" when one can."""
    from drivers.toml import MAX_NAME, NAME

    is_name = path.suffix == ".toml" and len(path.stem) <= MAX_NAME and re.fullmatch(NAME, path.stem)
    if is_name or path == STANDARD_OUTPUT:
        return ""
    how = "wanted letters, digits, '_', '-' and '.', as in my_meter.toml; --out FILE says another"
    return f"{str(path)!r}: a profile cannot have this file name, {how}"
