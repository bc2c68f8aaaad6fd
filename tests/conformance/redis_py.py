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
# The files whose tests reach the server, in two runs for each protocol: a run that dies loses its half. The others need
# another kind of service (a cluster, Sentinel, certificates, modules, a cloud's fault injector) or none; test_cwe_404
# binds a fixed port, which the two sides cannot share.
FILES = {
    "sync": """test_cache test_client test_command_parser test_commands test_connection test_connection_pool
        test_credentials test_encoding test_function test_hash test_keyspace_notifications test_legacy_responses_arg
        test_lock test_max_connections_error test_monitor test_multiprocessing test_pipeline test_pubsub test_retry
        test_scripting test_vsets""",
    "async": """test_asyncio/test_client test_asyncio/test_commands test_asyncio/test_connection
        test_asyncio/test_connection_pool test_asyncio/test_credentials
        test_asyncio/test_encoding test_asyncio/test_hash test_asyncio/test_keyspace_notifications
        test_asyncio/test_lock test_asyncio/test_monitor test_asyncio/test_pipeline test_asyncio/test_pubsub
        test_asyncio/test_retry test_asyncio/test_scripting test_asyncio/test_usage_counter test_asyncio/test_vsets""",
}
MARKS = " and ".join(
    f"not {mark}" for mark in ["onlycluster", "redismod", "ssl", "cp_integration", "multidb_integration", "replica"])


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


def command_line(python, names, protocol, port, report):
    url = f"redis://127.0.0.1:{port}/0"
    return [python, "-m", "pytest", *(f"tests/{name}.py" for name in names), "-q", "--tb=no", "-p", "no:cacheprovider",
            "-W", "ignore", "--override-ini", "addopts=", "-o", f"timeout={TEST_TIMEOUT_S}",
            "-o", "timeout_func_only=true", "-o", "capture=fd", "-m", MARKS, "--redis-url", url, "--redis-mod-url", url, "--protocol", str(protocol),
            f"--junitxml={report}"]


def read_report(report, prefix):
    passed, notes = collections.Counter(), {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{prefix} {case.get('classname')}::{case.get('name')}"
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            notes[name] = " ".join((problem.get("message") or problem.text or "").split())[:300]
        elif case.find("skipped") is None:
            passed[name] += 1
    # A test whose teardown failed is listed twice; it did not pass.
    for name in notes:
        passed.pop(name, None)
    return passed, notes


def run_part(suite, protocol, part, names, server, standin):
    tree, python = suite
    prefix, passed, notes = f"redis-py{protocol}", collections.Counter(), {}
    whole = f"{prefix} [whole {part} run]"
    with endpoint(server, standin) as (port, alive), tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.xml"
        run = subprocess.Popen(command_line(python, names, protocol, port, report), cwd=tree, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               start_new_session=True)
        try:
            output, _ = run.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            output, _ = run.communicate()
            notes[whole] = f"no end within {RUN_TIMEOUT_S} s"
        if os.path.exists(report):
            passed, failed = read_report(report, prefix)
            notes |= failed
        else:
            notes[whole] = f"pytest left no report: {output[-500:]}"
        if not alive():
            notes[whole] = "the server or Standin ended during the run"
    return passed, notes


def run(suite, server, standin, options):
    if options.select:
        parts = {"chosen": [name.removesuffix(".py") for name in options.select.split(",")]}
    else:
        parts = {part: names.split() for part, names in FILES.items()}
    work = [(protocol, part, names) for protocol in options.protocol for part, names in parts.items()]
    passed, notes = collections.Counter(), {}
    # Two at once: two thirds of the time the tests wait.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for part_passed, part_notes in pool.map(lambda item: run_part(suite, *item, server, standin), work):
            passed += part_passed
            notes |= part_notes
    return passed, notes
