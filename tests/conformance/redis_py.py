"""redis-py's own tests (from its source archive) against one standalone server, in RESP2 and in RESP3."""

import collections
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

from support import CACHE, endpoint, run_quietly

# Pinned: a moving suite would move the score without a change here.
VERSION = "8.1.0"
NEEDS = ["pytest==9.0.2", "pytest-asyncio", "pytest-timeout", "numpy", "pybreaker", "aiohttp", "xxhash", "cryptography",
         "opentelemetry-api", "opentelemetry-sdk", "redis-entraid"]
RUN_TIMEOUT_S = 420
TEST_TIMEOUT_S = 20
# Another kind of service stands behind these (cluster, Sentinel, TLS certificates, modules, a cloud's fault injector), or
# no server at all.
LEFT_OUT = ["test_scenario", "test_multidb", "test_http", "test_observability", "test_auth", "maint_notifications",
            "test_parsers", "test_cluster.py", "test_cluster_transaction.py", "test_sentinel.py",
            "test_sentinel_managed_connection.py", "test_ssl.py", "test_bloom.py", "test_json.py", "test_timeseries.py",
            "test_search.py", "test_search_aggregation.py", "test_search_querystring.py", "test_search_result.py",
            "test_backoff.py", "test_crc.py", "test_driver_info.py", "test_himport.py", "test_data_structure.py",
            "test_event.py", "test_command_policies.py", "test_defaults.py", "test_background.py"]
MARKS = "not onlycluster and not redismod and not ssl and not cp_integration and not multidb_integration and not replica"


def fetch():
    home = CACHE / "redis-py"
    tree = home / f"redis-{VERSION}"
    if not tree.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        run_quietly([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "redis",
                     "--dest", home, f"redis=={VERSION}"])
        with tarfile.open(home / f"redis-{VERSION}.tar.gz") as archive:
            archive.extractall(home, filter="data")
    python = home / "venv/bin/python"
    ready = home / "venv/ready"
    if not ready.exists():
        run_quietly([sys.executable, "-m", "venv", "--clear", home / "venv"])
        run_quietly([python, "-m", "pip", "install", "--quiet", *NEEDS, tree])
        ready.touch()
    return tree, python


def run_protocol(suite, protocol, server, standin, options):
    tree, python = suite
    passed, notes = collections.Counter(), {}
    chosen = [f"tests/{name}" for name in options.select.split(",")] if options.select else ["tests"]
    with tempfile.TemporaryDirectory(prefix="standin-conformance-") as folder, endpoint(server, standin) as (port, alive):
        report = f"{folder}/report.xml"
        command = [python, "-m", "pytest", *chosen, "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore",
                   "--override-ini", "addopts=", "-o", f"timeout={TEST_TIMEOUT_S}", "-o", "capture=fd", "-m", MARKS,
                   "--redis-url", f"redis://127.0.0.1:{port}/0", "--redis-mod-url", f"redis://127.0.0.1:{port}/0",
                   "--protocol", str(protocol), f"--junitxml={report}",
                   *(f"--ignore-glob=*/{name}" for name in LEFT_OUT)]
        run = subprocess.Popen(command, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        try:
            output, _ = run.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            output, _ = run.communicate()
            notes[f"redis-py{protocol} [whole run]"] = f"no end within {RUN_TIMEOUT_S} s"
        if not alive():
            notes[f"redis-py{protocol} [whole run]"] = "the server or Standin ended during the run"
        if not os.path.exists(report):
            raise RuntimeError(f"pytest left no report\n{output[-4000:]}")
        for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
            name = f"redis-py{protocol} {case.get('classname')}::{case.get('name')}"
            problem = next((child for child in case if child.tag in ("failure", "error")), None)
            if problem is not None:
                notes[name] = " ".join((problem.get("message") or "").split())[:300]
            elif case.find("skipped") is None:
                passed[name] += 1
    # A test whose teardown failed is listed twice; it did not pass.
    for name in notes:
        passed.pop(name, None)
    return passed, notes


def run(suite, server, standin, options):
    passed, notes = collections.Counter(), {}
    for protocol in options.protocol:
        protocol_passed, protocol_notes = run_protocol(suite, protocol, server, standin, options)
        passed += protocol_passed
        notes |= protocol_notes
    return passed, notes
