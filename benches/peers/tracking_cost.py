#!/usr/bin/env python3
"""What `divergence.source = "tracking"` costs the server: its CPU per write while a connection listens (CLIENT TRACKING ON
BCAST) and while none does, in interleaved rounds. Keys are drawn from 100,000, so that most writes of a turn of the
server are of different keys; redis-benchmark's one key would be told once a turn.

  tracking_cost.py [--rounds 5] [--n 400000]
"""

import argparse
import csv
import io
import socket
import statistics
import subprocess
import sys
import tempfile
import threading

import processes

PORT = 7430
CASES = {"pipeline 16": ["-P", "16", "-c", "50"], "no pipeline": ["-P", "1", "-c", "50"]}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--n", type=int, default=400_000, help="writes without a pipeline; four times as many with one")
    return parser.parse_args()


class Listener:
    """Reads what the server says of written keys and throws it away, as cheaply as a client can."""

    def __init__(self):
        self.bytes = 0
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.sendall(b"HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n")
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while chunk := self.socket.recv(1 << 20):
            self.bytes += len(chunk)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def measure(server, options, case):
    """CPU microseconds of the server for each write, and writes a second."""
    count = options.n * (4 if "16" in case else 1)
    command = ["redis-benchmark", "-p", str(PORT), "-t", "set", "-d", "64", "-r", "100000", "-n", str(count), "--csv", *CASES[case]]
    before = processes.cpu_seconds(server.pid)
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    spent = processes.cpu_seconds(server.pid) - before
    rows = list(csv.reader(io.StringIO(output)))
    return spent * 1e6 / count, float(rows[-1][1])


def main():
    options = arguments()
    redis = processes.program("redis-server")
    if not redis or processes.in_use(PORT):
        sys.exit(f"redis-server is missing, or port {PORT} is in use")
    with tempfile.TemporaryDirectory() as folder:
        command = [redis, "--port", str(PORT), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        server = processes.start(command, PORT, f"{folder}/redis.log", folder)
        try:
            samples = {case: {"without": [], "listening": []} for case in CASES}
            for number in range(options.rounds):
                for case in CASES:
                    # The other order every other round: drift of the machine hits both alike.
                    for kind in ["without", "listening"][:: 1 if number % 2 == 0 else -1]:
                        listener = Listener() if kind == "listening" else None
                        samples[case][kind].append(measure(server, options, case))
                        if listener:
                            heard = listener.bytes
                            listener.close()
                            if heard == 0:
                                sys.exit("nothing was heard of the writes")
        finally:
            processes.stop(server)
    print("| case | server, CPU us/write | with a listener | more | writes/s | with a listener |\n|---|---|---|---|---|---|")
    for case, kinds in samples.items():
        cpu = {kind: statistics.median(cpu for cpu, _ in rows) for kind, rows in kinds.items()}
        rate = {kind: statistics.median(rate for _, rate in rows) for kind, rows in kinds.items()}
        more = statistics.median(b[0] - a[0] for a, b in zip(kinds["without"], kinds["listening"]))
        print(f"| SET, 50 clients, {case} | {cpu['without']:.2f} | {cpu['listening']:.2f} | {more:.2f} | "
              f"{rate['without']:,.0f} | {rate['listening']:,.0f} |")


if __name__ == "__main__":
    main()
