"""An hour of mixed load on the model server, in a few minutes.

    python benchmarks/serving.py

Eight clients, four over gRPC and four over REST, ask as fast as they are answered; every ten
seconds a new version is put in place and the old one is taken away; and clients that behave badly
come between them. Every answer is compared with what the version says. Writes
benchmarks/results/serving.md.

Clients are processes of their own and compete for the same processors as the server.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "tiny_gru_co2"
FOLDER = Path(__file__).resolve().parent.parent / "savedmodels/forecasting" / MODEL
ROWS = 8  # different requests


def series() -> np.ndarray:
    """Requests: levels and waves like the data that the model was trained on, (ROWS, 104, 1)."""
    steps = np.arange(104)
    rows = [330 + 10 * i + 3 * np.sin(2 * np.pi * (steps + 5 * i) / 52) for i in range(ROWS)]
    return np.array(rows, dtype="float32")[..., None]


def make_version(source: Path, folder: Path, number: int, change: float) -> None:
    """Puts a version in place whose answers differ from the original's by a known amount."""
    import tensorflow as tf

    hidden = folder / f".{number}"
    if change == 0:
        shutil.copytree(source, hidden)
    else:
        original = tf.saved_model.load(str(source))
        signature = original.signatures["serving_default"]

        class Changed(tf.Module):
            def __init__(self) -> None:
                super().__init__()
                self.original = original

            @tf.function(input_signature=[tf.TensorSpec((None, 104, 1), tf.float32, "series")])
            def call(self, series: tf.Tensor) -> dict[str, tf.Tensor]:
                return {name: x + change for name, x in signature(series=series).items()}

        module = Changed()
        tf.saved_model.save(module, str(hidden), signatures=module.call)
    hidden.rename(folder / str(number))


def ask_grpc(port: int) -> Callable[[int], tuple[np.ndarray, int]]:
    """Returns a function that sends one request over gRPC."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    stub = prediction_service_pb2_grpc.PredictionServiceStub(
        grpc.insecure_channel(f"127.0.0.1:{port}")
    )
    requests = []
    for row in series():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        request.inputs["series"].CopyFrom(tf.make_tensor_proto(row[None]))
        requests.append(request)

    def ask(i: int) -> tuple[np.ndarray, int]:
        answer = stub.Predict(requests[i], timeout=30)
        return tf.make_ndarray(answer.outputs["forecast"]), answer.model_spec.version.value

    return ask


def ask_rest(port: int) -> Callable[[int], tuple[np.ndarray, int]]:
    """Returns a function that sends one request over REST; the version is not told."""
    import http.client

    bodies = [json.dumps({"instances": [row.tolist()]}) for row in series()]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(i: int) -> tuple[np.ndarray, int]:
        connection.request("POST", f"/v1/models/{MODEL}:predict", bodies[i])
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(body[:200])
        return np.array([row["forecast"] for row in json.loads(body)["predictions"]]), 0

    return ask


def client(
    kind: str, port: int, seconds: float, start: Any, right: list[np.ndarray], results: Any
) -> None:
    """Asks until the time is over; tells latencies, failures and wrong answers."""
    latencies: list[float] = []
    failed = wrong = 0
    seen: set[int] = set()
    ask = (ask_grpc if kind == "gRPC" else ask_rest)(port)
    ask(0)
    start.wait()
    end = time.perf_counter() + seconds
    i = os.getpid() % ROWS
    while (began := time.perf_counter()) < end:
        i = (i + 1) % ROWS
        try:
            got, version = ask(i)
        except Exception as error:
            failed += 1
            when = time.perf_counter() - end + seconds
            waited = time.perf_counter() - began
            print(f"{kind} at {when:.1f} s after {waited:.1f} s: {error!r}", file=sys.stderr)
            ask = (ask_grpc if kind == "gRPC" else ask_rest)(port)
            continue
        latencies.append(time.perf_counter() - began)
        seen.add(version)
        choices = right if version == 0 else [right[version % 2]]
        wrong += not any(np.allclose(got[0], one[i], atol=5e-3) for one in choices)
    results.put((kind, latencies, failed, wrong, seen))


def misbehave(port: int, seconds: float, start: Any, results: Any) -> None:
    """Garbage, half-sent requests, 100 MB bodies, wrong names and shapes, slow clients."""
    head = f"POST /v1/models/{MODEL}:predict HTTP/1.1\r\nHost: x\r\n".encode()
    sent = {
        "garbage": (head + b"Content-Length: 5\r\n\r\n{]xyz", 400),
        "wrong name": (
            b"POST /v1/models/none:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            404,
        ),
        "wrong shape": (head + b'Content-Length: 19\r\n\r\n{"inputs": [[1,2]]}', 400),
        "100 MB announced": (head + b"Content-Length: 104857600\r\n\r\n" + b"7" * 2**20, 413),
        "half-sent": (head + b"Content-Length: 100\r\n\r\n{", 0),
        "slow": (head[:20], 0),
    }
    counts = {name: [0, 0] for name in sent}
    left: list[socket.socket] = []
    frozen = 0.0  # the machine itself may stand still
    start.wait()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, (text, wanted) in sent.items():
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            counts[name][0] += 1
            try:
                connection.sendall(text)
                if wanted:
                    heard = connection.recv(2**16)
                    right = heard.split()[1] == str(wanted).encode() and b'{"error": ' in heard
                    counts[name][1] += right
                    connection.close()
                else:
                    left.append(connection)  # and never another word
                    counts[name][1] += 1
            except OSError:
                connection.close()
        for connection in left[:-8]:
            connection.close()
        del left[:-8]
        slept = time.perf_counter()
        time.sleep(1.0)
        frozen = max(frozen, time.perf_counter() - slept - 1.0)
    results.put(("bad", counts, frozen))


def bare_loop(folder: Path, seconds: float) -> tuple[float, float]:
    """Calls a second of the signature in a loop, and by the session that the server uses."""
    import tensorflow as tf

    from keras_seq.serving.loaded import LoadedModel

    rows = series()
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    loaded = LoadedModel(folder)
    session = loaded.signature("")
    calls = (
        lambda i: {k: v.numpy() for k, v in signature(series=tf.constant(rows[i : i + 1])).items()},
        lambda i: session.run({"series": rows[i : i + 1]}),
    )
    rates = []
    for call in calls:
        for i in range(50):
            call(i % ROWS)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            call(done % ROWS)
            done += 1
        rates.append(done / (time.perf_counter() - began))
    loaded.close()
    return rates[0], rates[1]


def load(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Runs server, clients and swaps; returns what was found."""
    context = multiprocessing.get_context("spawn")
    versions, served = place / "versions", place / MODEL
    versions.mkdir()
    served.mkdir()
    make_version(FOLDER / "1", versions, 2, 0.0)
    make_version(FOLDER / "1", versions, 1, 7.0)
    right = []
    import tensorflow as tf

    for number in (2, 1):
        signature = tf.saved_model.load(str(versions / str(number))).signatures["serving_default"]
        right.append(signature(series=tf.constant(series()))["forecast"].numpy())
    bare = bare_loop(versions / "2", options.bare_seconds)
    shutil.copytree(versions / "1", served / "1")
    log = place / "log"
    command = [sys.executable, "-m", "keras_seq", "serve", str(served), "--port", "0"]
    with log.open("wb") as out:
        server = subprocess.Popen([*command, "--grpc-port", "0"], stdout=out, stderr=out)
    try:
        while "gRPC" not in log.read_text():
            if server.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        lines = dict(line.split(maxsplit=1) for line in log.read_text().splitlines())
        rest = int(lines["REST"].split("/")[2].rpartition(":")[2])
        rpc = int(lines["gRPC"].rpartition(":")[2])
        start, results = context.Event(), context.Queue()
        workers = [
            context.Process(
                target=client,
                args=(
                    kind,
                    rpc if kind == "gRPC" else rest,
                    options.seconds,
                    start,
                    right,
                    results,
                ),
            )
            for kind in ["gRPC", "REST"] * (options.clients // 2)
        ]
        if not options.no_bad_clients:
            workers.append(
                context.Process(target=misbehave, args=(rest, options.seconds, start, results))
            )
        for worker in workers:
            worker.start()
        time.sleep(options.settle)  # until all have imported what they need
        start.set()
        end = time.perf_counter() + options.seconds
        number = 1
        while (left := end - time.perf_counter()) > options.swap_seconds:
            time.sleep(min(options.swap_seconds, left))
            number += 1
            hidden = served / f".{number}"
            shutil.copytree(versions / str(2 - number % 2), hidden)
            hidden.rename(served / str(number))
            if number > 2:
                shutil.rmtree(served / str(number - 2))
        found = [results.get(timeout=options.seconds + 120) for _ in workers]
        for worker in workers:
            worker.join()
        server.terminate()
        code = server.wait(60)
    finally:
        server.kill()
    # Before and after, since other work on the machine comes and goes.
    after = bare_loop(versions / "2", options.bare_seconds)
    bare = ((bare[0] + after[0]) / 2, (bare[1] + after[1]) / 2)
    return {"bare": bare, "clients": found, "versions": number, "code": code}


def report(options: argparse.Namespace, found: dict[str, Any]) -> str:
    """Writes the page."""
    rows, everything = [], []
    counts = {}
    for kind in ("gRPC", "REST"):
        mine = [entry for entry in found["clients"] if entry[0] == kind]
        times = np.sort(np.concatenate([entry[1] for entry in mine])) * 1000
        everything.append(times)
        p50, p95, p99 = np.percentile(times, [50, 95, 99])
        rows.append(
            f"| {kind} | {len(times):,} | {sum(entry[2] for entry in mine)} | "
            f"{sum(entry[3] for entry in mine)} | {len(times) / options.seconds:.0f} | {p50:.2f} | "
            f"{p95:.2f} | {p99:.2f} | {p99 / p50:.1f} | {times[-1]:.0f} |"
        )
        counts[kind] = len(times)
    rate = sum(counts.values()) / options.seconds
    signature, session = found["bare"]
    bad, frozen = next(
        ((entry[1], entry[2]) for entry in found["clients"] if entry[0] == "bad"), ({}, 0.0)
    )
    lines = [
        "# The model server under load",
        "",
        f"`python benchmarks/serving.py`: {options.clients} clients in processes of their own, "
        f"half over gRPC and half over REST, for {options.seconds:g} seconds, a new version every "
        f"{options.swap_seconds:g} seconds ({found['versions']} in all), one row a request. "
        f"{os.cpu_count()} cores, shared by server and clients, Python "
        f"{platform.python_version()}; load of the machine before: {options.load_before:.1f}.",
        "",
        options.note,
        "",
        "| protocol | answers | failed | wrong | a second | p50 ms | p95 ms | p99 ms | p99/p50 | "
        "longest ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"All together {rate:.0f} requests a second, {rate / signature:.0%} of a bare loop over "
        f"the SavedModel's signature ({signature:.0f} a second), {rate / session:.0%} of a bare "
        f"loop over the session that the server uses ({session:.0f} a second). The loops ran "
        "before and after, alone. The server ended with "
        f"{found['code']}.",
        "",
    ]
    if bad:
        lines += [
            "Clients that behaved badly meanwhile:",
            "",
            "| what | sent | answered as it should |",
            "|---|---|---|",
            *(f"| {name} | {sent} | {right} |" for name, (sent, right) in bad.items()),
            "",
            "Half-sent and slow ones are not waited for here; the tests see them told off. A sleep "
            f"of one second in this client overran by {frozen:.1f} seconds at most.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Runs the load and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--swap-seconds", type=float, default=10)
    parser.add_argument("--bare-seconds", type=float, default=10)
    parser.add_argument("--settle", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--no-bad-clients", action="store_true")
    parser.add_argument("--note", default="", help="a line about the machine, for the page")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/serving.md")
    options = parser.parse_args()
    options.load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as place:
        page = report(options, load(options, Path(place)))
    options.out.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
