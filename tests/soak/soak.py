#!/usr/bin/env python3
"""Clients connect, work and leave for some minutes; Standin's memory and descriptors must stay flat.

  soak.py --seconds 300 --clients 500        (make soak)

Starts a Redis and a Standin of its own, keeps --clients connections busy, each for a short life of mixed work (GET, SET,
DEL, INCR, pipelines, MULTI, a blocking pop, a subscription, a value of 64 KiB, and some that leave in the middle of a
request), and samples /proc each second. After the warm-up, the median memory of the last quarter of the samples may be
above that of the first by the stated slack and no more. Descriptors swing with the crowd: they stay under what the
clients account for, and with all clients gone they are back to where they started. Any unexpected reply fails the run
too. Exits 1 with the figures when one of these does not hold.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP_SHARE = 0.25
REPLY_TIMEOUT_S = 10
# The greatest growth from the first to the last quarter after warm-up. Memory: what an allocator's caches may swing.
MEMORY_SLACK_KIB = 2048
# At most, a client holds its own socket and a pinned connection to the server; beyond that comes what is pooled.
DESCRIPTORS_PER_CLIENT = 2
POOLED_DESCRIPTORS = 64
# Once all have left, only pooled connections may be open that were not before. A leak in one life of a thousand leaves
# hundreds.
LEFT_OVER_DESCRIPTORS = 32
SETTLE_S = 20


class Wrong(Exception):
    """A reply that a server would not have given."""


def encode(*words):
    parts = [str(word).encode() if not isinstance(word, bytes) else word for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Client:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def read(self):
        line = await self.reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind in b"+:":
            return rest
        if kind == b"-":
            raise Wrong(rest.decode(errors="replace"))
        if kind == b"$":
            return None if rest == b"-1" else (await self.reader.readexactly(int(rest) + 2))[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [await self.read() for _ in range(int(rest))]
        raise Wrong(f"not RESP2: {line!r}")

    async def call(self, *words):
        self.writer.write(encode(*words))
        await self.writer.drain()
        return await self.read()


def expect(got, expected, what):
    if got != expected:
        raise Wrong(f"{what}: {got!r}, expected {expected!r}")


async def plain(client, key, rng):
    value = rng.randbytes(rng.choice([8, 64, 1024]))
    for _ in range(rng.randrange(1, 30)):
        expect(await client.call("SET", key, value, "EX", 60), b"OK", "SET")
        expect(await client.call("GET", key), value, "GET")
    expect(await client.call("DEL", key), b"1", "DEL")


async def pipeline(client, key, rng):
    count = rng.randrange(2, 200)
    client.writer.write(b"".join(encode("INCR", key) for _ in range(count)))
    await client.writer.drain()
    for number in range(1, count + 1):
        expect(await client.read(), str(number).encode(), "INCR in a pipeline")
    await client.call("DEL", key)


async def transaction(client, key, _rng):
    # Written anew first: a watched key of an earlier life that expires just now makes EXEC answer nil, and rightly so.
    expect(await client.call("SET", key, "w", "EX", 60), b"OK", "SET")
    await client.call("WATCH", key)
    expect(await client.call("MULTI"), b"OK", "MULTI")
    expect(await client.call("SET", key, "x", "EX", 60), b"QUEUED", "SET in MULTI")
    expect(await client.call("EXEC"), [b"OK"], "EXEC")


async def blocking(client, key, _rng):
    expect(await client.call("BLPOP", key, "0.05"), None, "BLPOP")


async def subscription(client, key, _rng):
    expect(await client.call("SUBSCRIBE", key), [b"subscribe", key.encode(), b"1"], "SUBSCRIBE")
    expect(await client.call("UNSUBSCRIBE", key), [b"unsubscribe", key.encode(), b"0"], "UNSUBSCRIBE")


async def large(client, key, rng):
    value = rng.randbytes(64 * 1024)
    expect(await client.call("SET", key, value, "EX", 60), b"OK", "SET of 64 KiB")
    expect(await client.call("GET", key), value, "GET of 64 KiB")
    await client.call("DEL", key)


async def leave_half_way(client, key, rng):
    """A request cut short, a reply never read, or a wait left: the connection closes under it."""
    request = rng.choice([encode("SET", key, "y" * 2000, "EX", 60)[:700], encode("GET", key), encode("BLPOP", key, 30),
                          encode("SUBSCRIBE", key), encode("WATCH", key)])
    client.writer.write(request)
    await client.writer.drain()


WORK = [plain] * 6 + [pipeline] * 3 + [transaction, blocking, subscription, large, leave_half_way]


class Tally:
    def __init__(self):
        self.lives = 0
        self.errors = []

    def wrong(self, what):
        self.errors.append(what)


async def worker(number, port, end, tally, seed):
    rng = random.Random(seed * 1_000_003 + number)
    while time.monotonic() < end:
        work = rng.choice(WORK)
        # A key of its own for each kind of work: what a life that was cut short left behind is of the same type.
        key = f"soak:{work.__name__}:{number}"
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), REPLY_TIMEOUT_S)
            try:
                await asyncio.wait_for(work(Client(reader, writer), key, rng), REPLY_TIMEOUT_S)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        except (OSError, Wrong, asyncio.IncompleteReadError, TimeoutError) as error:
            tally.wrong(f"{work.__name__}: {type(error).__name__} {error}")
        tally.lives += 1
        # A short rest, so that the crowd is many clients rather than a few fast ones.
        await asyncio.sleep(rng.uniform(0.0, 0.4))


def sample(pid):
    """(resident KiB, open descriptors)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident, len(os.listdir(f"/proc/{pid}/fd"))


async def free_port():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def started(command, port, log):
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    for _ in range(400):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            pong = await Client(reader, writer).call("PING")
            writer.close()
            if pong == b"PONG":
                return process
        if process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    process.kill()
    sys.exit(f"{command[0]} does not answer on port {port}\n{pathlib.Path(log).read_text(errors='replace')[-2000:]}")


async def soak(options, folder):
    backend, listen, control = [await free_port() for _ in range(3)]
    config = folder / "standin.toml"
    config.write_text(
        f'[listen]\naddress = "127.0.0.1:{listen}"\n\n[control]\naddress = "127.0.0.1:{control}"\n\n'
        f'[[backend]]\nname = "primary"\nrole = "primary"\naddress = "127.0.0.1:{backend}"\n')
    processes, samples, tally = [], [], Tally()
    try:
        redis = shutil.which("redis-server") or sys.exit("redis-server is missing: run scripts/install-test-tools")
        processes.append(await started([redis, "--port", str(backend), "--save", "", "--dir", str(folder)], backend,
                                       folder / "redis.log"))
        processes.append(await started([str(options.standin.resolve()), "run", "--config", str(config)], listen,
                                       folder / "standin.log"))
        pid = processes[-1].pid
        await asyncio.sleep(1)
        idle = sample(pid)
        end = time.monotonic() + options.seconds
        lives = (worker(number, listen, end, tally, options.seed) for number in range(options.clients))
        crowd = [asyncio.create_task(life) for life in lives]
        while time.monotonic() < end and processes[-1].poll() is None:
            await asyncio.sleep(1)
            samples.append(sample(pid))
        await asyncio.gather(*crowd)
        if processes[-1].poll() is not None:
            sys.exit(f"Standin ended with {processes[-1].returncode}\n{(folder / 'standin.log').read_text()[-2000:]}")
        for _ in range(SETTLE_S):
            left = sample(pid)
            if left[1] <= idle[1] + LEFT_OVER_DESCRIPTORS:
                break
            await asyncio.sleep(1)
        return idle, samples, left, tally
    finally:
        for process in reversed(processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def judge(clients, idle, samples, left, tally):
    """Sentences that say what does not hold; prints the figures."""
    steady = samples[int(len(samples) * WARM_UP_SHARE):]
    quarter = max(len(steady) // 4, 1)
    first = [statistics.median(column) for column in zip(*steady[:quarter])]
    last = [statistics.median(column) for column in zip(*steady[-quarter:])]
    print(f"lives {tally.lives}, errors {len(tally.errors)}")
    print(f"memory KiB: idle {idle[0]}, after warm-up {first[0]:.0f}, at the end {last[0]:.0f}, all gone {left[0]}")
    print(f"descriptors: idle {idle[1]}, after warm-up {first[1]:.0f}, at the end {last[1]:.0f}, all gone {left[1]}")
    problems = [f"unexpected: {error}" for error in tally.errors[:20]]
    if last[0] > first[0] + MEMORY_SLACK_KIB:
        problems.append(f"memory grew by {last[0] - first[0]:.0f} KiB after the warm-up")
    most = max(descriptors for _, descriptors in samples)
    ceiling = idle[1] + DESCRIPTORS_PER_CLIENT * clients + POOLED_DESCRIPTORS
    if most > ceiling:
        problems.append(f"{most} descriptors were open at once; {clients} clients account for {ceiling}")
    if left[1] > idle[1] + LEFT_OVER_DESCRIPTORS:
        problems.append(f"{left[1] - idle[1]} descriptors are left after the last client has gone")
    if tally.lives == 0:
        problems.append("no client lived")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--standin", type=pathlib.Path, default=ROOT / "target/release/standin")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not os.access(options.standin, os.X_OK):
        parser.error(f"{options.standin} is no program: `make build` makes it, --standin names another")
    if options.seconds < 20:
        parser.error("--seconds must be at least 20: less shows nothing after the warm-up")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="standin-soak-") as folder:
        problems = judge(options.clients, *asyncio.run(soak(options, pathlib.Path(folder))))
    for problem in problems:
        print(f"FAILED: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
