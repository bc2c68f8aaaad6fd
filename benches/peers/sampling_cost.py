#!/usr/bin/env python3
"""What comparing contents (`[sampling]`) costs: CPU of Standin, of the primary and of the mirrored backup, in thousandths of
a core, while nobody asks anything. 100,000 keys of 64 bytes.

  sampling_cost.py [--seconds 15]
"""

import argparse
import os
import pathlib
import subprocess
import tempfile
import time

import processes

HERE = pathlib.Path(__file__).resolve().parent
PORTS = (7420, 7421)
RATES = ["off", "10", "100", "1000"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--standin", type=pathlib.Path, default=HERE.parents[1] / "target/release/standin")
    parser.add_argument("--seconds", type=float, default=15)
    options = parser.parse_args()
    redis = processes.program("redis-server")
    print("| keys a second | Standin | primary | backup |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        servers = [processes.start([redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                                   port, f"{folder}/{port}.log", folder) for port in PORTS]
        try:
            fill = ["redis-benchmark", "-p", str(PORTS[0]), "-t", "set", "-d", "64", "-r", "160000", "-n", "160000", "-P", "16", "-q"]
            subprocess.run(fill, check=True, stdout=subprocess.DEVNULL)
            for rate in RATES:
                mode = {"STANDIN_SAMPLING_MODE": "off"} if rate == "off" else {"STANDIN_SAMPLING_RATE": rate}
                command = ["env", *(f"{name}={value}" for name, value in mode.items()),
                           str(options.standin.resolve()), "run", "--config", "standin-mirrored.toml"]
                standin = processes.start(command, 7406, f"{folder}/standin.log", HERE)
                try:
                    # Until the backup is filled.
                    time.sleep(20)
                    watched = [standin, *servers]
                    before = [processes.cpu_seconds(process.pid) for process in watched]
                    time.sleep(options.seconds)
                    spent = [processes.cpu_seconds(process.pid) - was for process, was in zip(watched, before)]
                    cells = [f"{seconds / options.seconds * 1000:.1f}" for seconds in spent]
                    print(f"| {rate} | {' | '.join(cells)} |", flush=True)
                finally:
                    processes.stop(standin)
        finally:
            for server in servers:
                processes.stop(server)


if __name__ == "__main__":
    main()
