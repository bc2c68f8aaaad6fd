"""Redis's own Tcl suite in external mode: one run per unit file with a fresh server, so that one hang loses one unit."""

import collections
import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from support import CACHE, endpoint, run_quietly

APT_SOURCES = pathlib.Path("/etc/apt")
UNIT_TIMEOUT_S = 240
FIRST_PORT, PORTS_PER_RUN, RUN_SLOTS = 12_000, 50, 100
RUNS = itertools.count()
RESULT = re.compile(r"^\[(ok|err|exception|timeout)\]: (.*)$")
# " (12 ms)" after a name that passed, " in tests/unit/x.tcl" after one that did not.
DURATION = re.compile(r" \(\d+ ms\)$")
PLACE = re.compile(r" in tests/\S+$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Names that carry a number drawn by the run itself.
DRAWN = re.compile(r"\b(0x[0-9a-f]+|\d{6,})\b")


def write_source_lists(apt):
    """The system's own package lists again, asking for sources instead of binaries."""
    folder = apt / "sources.list.d"
    folder.mkdir(exist_ok=True)
    for path in [APT_SOURCES / "sources.list", *sorted((APT_SOURCES / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            text = re.sub(r"(?m)^Types:.*$", "Types: deb-src", path.read_text())
        elif path.suffix == ".list" and path.is_file():
            text = re.sub(r"(?m)^deb\b", "deb-src", path.read_text())
        else:
            continue
        (folder / path.name).write_text(text)


def fetch():
    """Unpack Debian's source package of Redis into the cache; the system's package lists are not touched."""
    home = CACHE / "tcl"
    found = sorted(home.glob("redis-*/runtest"))
    if not found:
        apt = home / "apt"
        for folder in ("lists/partial", "cache/archives/partial"):
            (apt / folder).mkdir(parents=True, exist_ok=True)
        write_source_lists(apt)
        options = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", f"Dir::Etc::sourceparts={apt}/sources.list.d",
                   "-o", f"Dir::State::lists={apt}/lists", "-o", f"Dir::Cache={apt}/cache",
                   "-o", "APT::Sandbox::User=root"]
        run_quietly(["apt-get", *options, "update", "-qq"])
        run_quietly(["apt-get", *options, "source", "-qq", "redis"], cwd=home)
        found = sorted(home.glob("redis-*/runtest"))
    if not found:
        sys.exit(f"Debian's source package `redis` brought no Tcl suite into {home}")
    tree = found[0].parent
    # The suite calls these by path; the installed ones are the same version's.
    for name in ("redis-server", "redis-cli", "redis-benchmark"):
        link = tree / "src" / name
        if not link.exists() and shutil.which(name):
            link.symlink_to(shutil.which(name))
    return tree


def units(tree):
    listed = (tree / "tests/test_helper.tcl").read_text()
    return re.search(r"set ::all_tests \{(.*?)\}", listed, re.S).group(1).split()


@contextlib.contextmanager
def own_view(tree):
    """The tree as links, with a tests/tmp of its own: the suite empties that folder when it starts."""
    with tempfile.TemporaryDirectory(prefix="standin-conformance-") as folder:
        view = pathlib.Path(folder)
        for entry in tree.iterdir():
            if entry.name != "tests":
                (view / entry.name).symlink_to(entry)
        (view / "tests/tmp").mkdir(parents=True)
        for entry in (tree / "tests").iterdir():
            if entry.name != "tmp":
                (view / "tests" / entry.name).symlink_to(entry)
        yield view


def run_unit(tree, unit, server, standin):
    """(passed, failed notes) of one unit file."""
    passed, notes = collections.Counter(), {}
    with own_view(tree) as view, endpoint(server, standin) as (port, alive):
        # Runs go side by side; each gets a range of ports for the suite's own coordinator.
        base_port = FIRST_PORT + next(RUNS) % RUN_SLOTS * PORTS_PER_RUN
        command = ["./runtest", "--host", "127.0.0.1", "--port", str(port), "--singledb", "--durable", "--no-latency",
                   "--baseport", str(base_port), "--timeout", str(UNIT_TIMEOUT_S), "--single", unit]
        run = subprocess.Popen(command, cwd=view, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        try:
            output, _ = run.communicate(timeout=UNIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # The suite starts helpers of its own; its session goes as one.
            os.killpg(run.pid, signal.SIGKILL)
            output, _ = run.communicate()
            notes[f"{unit} [whole unit]"] = f"no end within {UNIT_TIMEOUT_S} s"
        if not alive():
            notes[f"{unit} [whole unit]"] = "the server or Standin ended during the unit"
    lines = COLOUR.sub("", output).splitlines()
    for number, line in enumerate(lines):
        found = RESULT.match(line)
        if not found:
            continue
        kind, text = found.groups()
        name = f"{unit} " + DRAWN.sub("#", PLACE.sub("", DURATION.sub("", text)))
        if kind == "ok":
            passed[name] += 1
        else:
            notes[name] = f"[{kind}] " + " ".join(lines[number + 1:number + 3])[:300]
    return passed, notes


def run(tree, server, standin, options):
    chosen = options.units.split(",") if options.units else units(tree)
    passed, notes = collections.Counter(), {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for unit_passed, unit_notes in pool.map(lambda unit: run_unit(tree, unit, server, standin), chosen):
            passed += unit_passed
            notes |= unit_notes
    return passed, notes
