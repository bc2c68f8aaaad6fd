#!/usr/bin/env python3
"""Open idle clients to a RESP port and print what each costs a process in resident memory.

  idle_memory.py --port 6380 --pid $(pgrep -n standin)          5,000 clients
  idle_memory.py --standin target/release/standin               starts Redis and Standin itself

Each client says PING once (a client that never spoke has cost no buffers yet) and then keeps silent. Exits 1 above
--bytes-max (default 4096) for each client.
"""

import argparse
import contextlib
import pathlib
import resource
import socket
import sys
import tempfile
import time

import processes

HERE = pathlib.Path(__file__).resolve().parent
# A first crowd comes and goes, so that what the process allocates once is not counted as the clients'.
WARM_UP_CLIENTS = 100
SETTLE_S = 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_own(stack, standin):
    """(port, pid) of a Standin of our own in front of a Redis of our own."""
    folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="standin-idle-")))
    backend, listen, control = free_port(), free_port(), free_port()
    redis = processes.start([processes.program("redis-server") or "redis-server", "--port", str(backend), "--save", "",
                             "--dir", str(folder)], backend, folder / "redis.log", folder)
    stack.callback(processes.stop, redis)
    (folder / "standin.toml").write_text(
        f'[listen]\naddress = "127.0.0.1:{listen}"\n\n[control]\naddress = "127.0.0.1:{control}"\n\n'
        f'[[backend]]\nname = "primary"\nrole = "primary"\naddress = "127.0.0.1:{backend}"\n')
    command = [str(standin.resolve()), "run", "--config", str(folder / "standin.toml")]
    process = processes.start(command, listen, folder / "standin.log", folder)
    stack.callback(processes.stop, process)
    return listen, process.pid


def open_clients(stack, port, count):
    for number in range(count):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        client.sendall(b"*1\r\n$4\r\nPING\r\n")
        answer = client.recv(64)
        if not answer.startswith(b"+PONG"):
            sys.exit(f"client {number} was answered {answer!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int)
    parser.add_argument("--pid", type=int)
    parser.add_argument("--standin", type=pathlib.Path, help="start this program instead of measuring a running one")
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--bytes-max", type=int, default=4096)
    options = parser.parse_args()
    if not options.standin and not (options.port and options.pid):
        parser.error("name --port and --pid, or --standin")
    # This process holds one end of each connection; the one it starts inherits the limit and holds two.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        port, pid = start_own(stack, options.standin) if options.standin else (options.port, options.pid)
        with contextlib.ExitStack() as crowd:
            open_clients(crowd, port, WARM_UP_CLIENTS)
        time.sleep(SETTLE_S)
        before = processes.memory_kib(pid)
        open_clients(stack, port, options.clients)
        time.sleep(SETTLE_S)
        after = processes.memory_kib(pid)
    each = (after - before) * 1024 / options.clients
    print(f"{options.clients} idle clients: {before} KiB -> {after} KiB, {each:.0f} bytes for each (at most {options.bytes_max})")
    sys.exit(each > options.bytes_max)


if __name__ == "__main__":
    main()
