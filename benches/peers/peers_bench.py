#!/usr/bin/env python3
"""Measure Standin beside twemproxy, HAProxy and Envoy, in one run, in front of one Redis (make bench).

Rounds are interleaved and start at another peer each time, so that drift of the machine hits all alike. Per case and
peer: requests/s, proxy CPU microseconds per request (user and system time of the process tree), that CPU against
twemproxy's in the same round, requests/s against direct in the same round, p99, memory; for one client also the median
time that the proxy adds. Then a verdict for each figure that Standin promises.

  peers_bench.py                     every case, 3 rounds (about 6 minutes)
  peers_bench.py --smoke             every case once and small: does it run? (under 60 s; its figures mean little)
  peers_bench.py --only twemproxy,standin --cases p1get,c1
  peers_bench.py --before OLDER      an older build beside this one, in the same rounds
"""

import argparse
import contextlib
import csv
import datetime
import io
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import processes

HERE = pathlib.Path(__file__).resolve().parent
REDIS_PORT = 7400
BACKUP_PORTS = (7410, 7411)
# Primary and mirrored backup of the second Standin; it must be the only writer there.
MIRRORED_PORTS = (7420, 7421)
FILL_KEYS = 10_000
BENCH_TIMEOUT_S = 300
# Requests of the one-client probe per peer and round, in chunks that alternate between the peers.
PROBE_CHUNKS, PROBE_CHUNK = 20, 250

# Arguments of redis-benchmark, and how many of --n requests a case sends.
CASES = {
    "p1get": (["-t", "get", "-c", "50", "-P", "1", "-d", "64"], 1, "GET, 50 clients, no pipeline"),
    "p1set": (["-t", "set", "-c", "50", "-P", "1", "-d", "64"], 1, "SET, 50 clients, no pipeline"),
    "p16get": (["-t", "get", "-c", "50", "-P", "16", "-d", "64"], 5, "GET, 50 clients, pipeline 16"),
    "p16set": (["-t", "set", "-c", "50", "-P", "16", "-d", "64"], 4, "SET, 50 clients, pipeline 16"),
    "c500": (["-t", "get", "-c", "500", "-P", "1", "-d", "64"], 1, "GET, 500 clients, no pipeline"),
    "big": (["-t", "get", "-c", "50", "-P", "1", "-d", "16384"], 0.5, "GET of 16 KiB, 50 clients"),
    "c1": (["-t", "get", "-c", "1", "-P", "1", "-d", "64"], 0.5, "GET, 1 client"),
}

# What Standin promises: (case, figure, at most or at least, bound).
PROMISES = [
    ("p1get", "cpu_ratio", "at most", 0.80), ("p1get", "rps_ratio", "at least", 0.85),
    ("p16get", "cpu_ratio", "at most", 0.20), ("p16get", "rps_ratio", "at least", 0.85),
    ("p16set", "cpu_ratio", "at most", 0.35), ("p16set", "rps_ratio", "at least", 0.75),
    ("c500", "cpu_ratio", "at most", 0.70), ("c500", "rps_ratio", "at least", 1.10),
    ("big", "cpu_ratio", "at most", 0.80), ("big", "rps_ratio", "at least", 0.60),
    ("c1", "cpu_ratio", "at most", 0.95), ("c1", "added_p50_us", "at most", 15.0),
]
PEAK_MIB_MAX = 16.0
FIGURE_NAMES = {
    "cpu_ratio": "CPU per request against twemproxy",
    "rps_ratio": "requests/s against direct",
    "added_p50_us": "added p50 (microseconds)",
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--standin", type=pathlib.Path, default=HERE.parents[1] / "target/release/standin")
    parser.add_argument("--before", type=pathlib.Path, help="program of an older build, measured as the peer `before`")
    parser.add_argument("--n", type=int, default=200_000, help="requests of a plain case (default 200000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {','.join(CASES)}")
    parser.add_argument("--only", help="peers to measure, of twemproxy,haproxy,envoy,standin,relay (copies bytes and "
                                       "understands nothing: what any proxy adds here) and mirrored (a Standin with a "
                                       "mirrored backup and servers of its own); the last two are not measured by default")
    parser.add_argument("--smoke", action="store_true", help="one small round")
    parser.add_argument("--json", type=pathlib.Path, help="also write every sample here")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a promise is missed or cannot be judged")
    options = parser.parse_args()
    options.cases = options.cases.split(",")
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.smoke:
        options.n, options.rounds = 12_000, 1
    return options


def peer_commands(options):
    """{name: (command or the reason that there is none, port)}."""
    nutcracker, haproxy = processes.program("nutcracker"), processes.program("haproxy")
    chosen = options.only.split(",") if options.only else ["twemproxy", "haproxy", "envoy", "standin"]
    envoy = processes.envoy() if "envoy" in chosen else None
    relay = processes.relay() if "relay" in chosen else None
    standin = options.standin.resolve()
    install = "not installed: scripts/install-test-tools --peers"
    commands = {
        "twemproxy": ([nutcracker, "-c", "nutcracker.yml", "-m", "16384", "-s", "7490"] if nutcracker else install, 7401),
        "haproxy": ([haproxy, "-db", "-f", "haproxy.cfg"] if haproxy else install, 7402),
        "envoy": ([envoy, "-c", "envoy.yaml", "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"] if envoy
                  else "not to be had from PyPI here", 7403),
        "standin": ([str(standin), "run", "--config", "standin.toml"] if os.access(standin, os.X_OK)
                    else f"no program at {standin}: make build", 7404),
        "relay": ([relay, "7412", str(REDIS_PORT)] if relay else "needs rustc", 7412),
        "mirrored": ([str(standin), "run", "--config", "standin-mirrored.toml"], 7406),
    }
    if options.before:
        chosen.append("before")
        commands["before"] = (["env", "STANDIN_LISTEN_ADDRESS=127.0.0.1:7408", "STANDIN_CONTROL_ADDRESS=127.0.0.1:7409",
                               str(options.before.resolve()), "run", "--config", "standin.toml"], 7408)
    unknown = set(chosen) - set(commands)
    if unknown:
        sys.exit(f"no such peer: {', '.join(sorted(unknown))}")
    return {name: commands[name] for name in commands if name in chosen}


def start_all(stack, folder, options):
    """Start Redis and the peers. Returns {name: (process or None, port)}, `direct` first."""
    redis = processes.program("redis-server")
    if not redis:
        sys.exit("redis-server is missing: run scripts/install-test-tools")
    peers = peer_commands(options)
    for port in [REDIS_PORT, *BACKUP_PORTS, *(port for _, port in peers.values())]:
        if processes.in_use(port):
            sys.exit(f"port {port} is in use: another bench may be running")

    def start(name, command, port):
        process = processes.start(command, port, f"{folder}/{name}.log", HERE)
        stack.callback(processes.stop, process)
        return process

    mirrored = MIRRORED_PORTS if "mirrored" in peers else ()
    for port in (REDIS_PORT, *BACKUP_PORTS, *mirrored):
        start(f"redis-{port}", [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                                "--dir", folder], port)
    started = {"direct": (None, REDIS_PORT)}
    for name, (command, port) in peers.items():
        if isinstance(command, str):
            print(f"not measured: {name}: {command}")
            continue
        try:
            started[name] = (start(name, command, port), port)
        except RuntimeError as error:
            print(f"not measured: {name}: {error}")
    return started


def load(port, case, requests):
    """One run of redis-benchmark: (requests/s, p99 in ms)."""
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-n", str(requests), "-r", str(FILL_KEYS), "--csv",
               *CASES[case][0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_TIMEOUT_S, stdin=subprocess.DEVNULL)
    rows = [row for row in csv.reader(io.StringIO(done.stdout)) if len(row) > 6 and row[1][:1].isdigit()]
    if done.returncode != 0 or not rows:
        raise RuntimeError(f"redis-benchmark on port {port} failed: {(done.stdout + done.stderr)[-500:]}")
    return float(rows[-1][1]), float(rows[-1][6])


def fill(case):
    """GET cases read values of the size they name."""
    size = CASES[case][0][CASES[case][0].index("-d") + 1]
    for port in (REDIS_PORT, MIRRORED_PORTS[0]):
        if processes.in_use(port):
            subprocess.run(["redis-benchmark", "-p", str(port), "-t", "set", "-n", "60000", "-r", str(FILL_KEYS), "-P", "16",
                            "-d", size, "-q"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True)


def probe_p50_us(started):
    """Median round trip of one client per peer. redis-benchmark's own histogram has steps of 8 microseconds, too coarse
    for what is asked; the time this loop itself costs is in every figure and falls out of the difference."""
    request = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n"
    samples = {name: [] for name in started}
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name, (_, port) in started.items():
            sockets[name] = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            sockets[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for chunk in range(PROBE_CHUNKS + 1):
            for name, connection in sockets.items():
                for _ in range(PROBE_CHUNK):
                    before = time.perf_counter_ns()
                    connection.sendall(request)
                    if not connection.recv(4096):
                        raise RuntimeError(f"{name} closed the connection")
                    # The first chunk warms up.
                    if chunk:
                        samples[name].append(time.perf_counter_ns() - before)
    return {name: statistics.median(values) / 1000 for name, values in samples.items()}


def measure(started, case, options):
    """{peer: [sample per round]}."""
    fill(case)
    requests = max(int(options.n * CASES[case][1]), 1000)
    samples = {name: [] for name in started}
    for number in range(options.rounds):
        names = list(started)
        names = names[number % len(names):] + names[:number % len(names)]
        sample = {}
        for name in names:
            process, port = started[name]
            before = processes.cpu_seconds(process.pid) if process else 0.0
            rps, p99_ms = load(port, case, requests)
            used = processes.cpu_seconds(process.pid) - before if process else 0.0
            sample[name] = {
                "rps": rps,
                "p99_ms": p99_ms,
                "cpu_us": used / requests * 1e6,
                "rss_mib": processes.memory_kib(process.pid) / 1024 if process else 0.0,
                "peak_mib": processes.memory_kib(process.pid, "VmHWM") / 1024 if process else 0.0,
            }
        p50_us = probe_p50_us(started) if case == "c1" else {}
        for name, figures in sample.items():
            figures["rps_ratio"] = figures["rps"] / sample["direct"]["rps"]
            if sample.get("twemproxy", {}).get("cpu_us") and name != "direct":
                figures["cpu_ratio"] = figures["cpu_us"] / sample["twemproxy"]["cpu_us"]
            if p50_us and name != "direct":
                figures["added_p50_us"] = p50_us[name] - p50_us["direct"]
            samples[name].append(figures)
    return samples


def middle(samples, figure):
    """Median over the rounds, or None where a figure was not taken."""
    values = [sample[figure] for sample in samples if figure in sample]
    return statistics.median(values) if values else None


def show(value, digits):
    return "" if value is None else f"{value:.{digits}f}"


def print_case(case, samples):
    added = " added p50 us |" if case == "c1" else ""
    print(f"\n{CASES[case][2]} (`{case}`)\n")
    print(f"| peer | requests/s | of direct | CPU us/request | of twemproxy | p99 ms |{added} RSS MiB |")
    print("|---|---|---|---|---|---|---|" + ("---|" if added else ""))
    for name, rounds in samples.items():
        direct = name == "direct"
        extra = f" {show(middle(rounds, 'added_p50_us'), 1)} |" if added else ""
        print(f"| {name} | {middle(rounds, 'rps'):.0f} | {middle(rounds, 'rps_ratio'):.2f} "
              f"| {'' if direct else show(middle(rounds, 'cpu_us'), 2)} | {show(middle(rounds, 'cpu_ratio'), 2)} "
              f"| {middle(rounds, 'p99_ms'):.3f} |{extra} {'' if direct else show(middle(rounds, 'rss_mib'), 1)} |",
              flush=True)


def verdicts(results):
    """Print one line per promise. Returns how many were not kept or could not be judged."""
    print("\n| Standin promises | bound | measured | verdict |\n|---|---|---|---|")
    open_promises = 0
    for case, figure, side, bound in PROMISES:
        if case not in results:
            continue
        value = middle(results[case].get("standin", []), figure)
        kept = value is not None and (value <= bound if side == "at most" else value >= bound)
        verdict = "not measured" if value is None else "kept" if kept else "MISSED"
        open_promises += not kept
        print(f"| {CASES[case][2]}: {FIGURE_NAMES[figure]} | {side} {bound:g} | {show(value, 2)} | {verdict} |")
    peaks = [sample["peak_mib"] for samples in results.values() for sample in samples.get("standin", [])]
    kept = bool(peaks) and max(peaks) <= PEAK_MIB_MAX
    verdict = "kept" if kept else "MISSED" if peaks else "not measured"
    print(f"| memory under these loads, peak MiB | at most {PEAK_MIB_MAX:g} | {show(max(peaks, default=None), 1)} | {verdict} |")
    return open_promises + (not kept)


def machine():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    load_1m = os.getloadavg()[0]
    return f"{today}, {os.cpu_count()} cores of {model}, Linux {platform.release()}, load before the run {load_1m:.2f}"


def main():
    options = arguments()
    print(machine())
    results = {}
    with tempfile.TemporaryDirectory(prefix="standin-bench-") as folder, contextlib.ExitStack() as stack:
        started = start_all(stack, folder, options)
        for case in options.cases:
            results[case] = measure(started, case, options)
            print_case(case, results[case])
    open_promises = verdicts(results)
    if options.smoke:
        print("smoke run: one small round; its figures mean little")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.strict and open_promises:
        sys.exit(1)


if __name__ == "__main__":
    main()
