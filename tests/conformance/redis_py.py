"""redis-py's own tests (from its source archive) against one standalone server, in RESP2 and in RESP3."""

import collections
import concurrent.futures
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
RUN_TIMEOUT_S = 900
TEST_TIMEOUT_S = 20
# The files whose tests reach the server. The others need another kind of service (a cluster, Sentinel, certificates,
# modules, a cloud's fault injector) or none.
FILES = """
test_cache test_client test_command_parser test_commands test_connection test_connection_pool test_credentials
test_encoding test_function test_hash test_keyspace_notifications test_legacy_responses_arg test_lock
test_max_connections_error test_monitor test_multiprocessing test_pipeline test_pubsub test_retry test_scripting
test_vsets
test_asyncio/test_client test_asyncio/test_commands test_asyncio/test_connection test_asyncio/test_connection_pool
test_asyncio/test_credentials test_asyncio/test_cwe_404 test_asyncio/test_encoding test_asyncio/test_hash
test_asyncio/test_keyspace_notifications test_asyncio/test_lock test_asyncio/test_monitor test_asyncio/test_pipeline
test_asyncio/test_pubsub test_asyncio/test_retry test_asyncio/test_scripting test_asyncio/test_usage_counter
test_asyncio/test_vsets
""".split()
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
    names = options.select.split(",") if options.select else FILES
    chosen = [f"tests/{name.removesuffix('.py')}.py" for name in names]
    with tempfile.TemporaryDirectory(prefix="standin-conformance-") as folder, endpoint(server, standin) as (port, alive):
        report = f"{folder}/report.xml"
        command = [python, "-m", "pytest", *chosen, "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "ignore",
                   "--override-ini", "addopts=", "-o", f"timeout={TEST_TIMEOUT_S}", "-o", "capture=fd", "-m", MARKS,
                   "--redis-url", f"redis://127.0.0.1:{port}/0", "--redis-mod-url", f"redis://127.0.0.1:{port}/0",
                   "--protocol", str(protocol), f"--junitxml={report}"]
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
    # Both at once: two thirds of the time the tests wait.
    with concurrent.futures.ThreadPoolExecutor(len(options.protocol)) as pool:
        runs = pool.map(lambda protocol: run_protocol(suite, protocol, server, standin, options), options.protocol)
        for protocol_passed, protocol_notes in runs:
            passed += protocol_passed
            notes |= protocol_notes
    return passed, notes
