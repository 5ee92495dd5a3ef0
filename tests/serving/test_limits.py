"""Clients that behave badly are answered in TensorFlow Serving's form, and disturb nobody."""

from __future__ import annotations

import json
import socket
import threading
import time

import numpy as np
import pytest

from tests.serving.conftest import ROWS, forecast
from tests.serving.test_rest import instances, post, wait_until_one_is_under_way

HEAD = b"POST /v1/models/toy:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def talk(server, *parts: bytes, pause: float = 0.0) -> bytes:
    """Sends the parts and reads until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has said no already
        heard = b""
        while piece := client.recv(2**16):
            heard += piece
        return heard


def error_of(heard: bytes) -> tuple[int, str]:
    head, _, body = heard.partition(b"\r\n\r\n")
    answer = json.loads(body)
    assert list(answer) == ["error"]
    return int(head.split()[1]), answer["error"]


@pytest.fixture()
def good(server):
    """Good requests go on all the while, and each must be right."""
    stop, failures, count = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                status, answer = post(server, instances())
                got = np.array([row["forecast"] for row in answer["predictions"]])
                np.testing.assert_allclose(got, forecast(ROWS, 2), rtol=1e-6)
                count[0] += status == 200
            except Exception as error:  # whatever it is, the test must hear of it
                failures.append(repr(error))
                return

    thread = threading.Thread(target=ask)
    thread.start()
    yield count
    stop.set()
    thread.join()
    assert not failures
    assert count[0] > 0


def test_a_body_that_is_announced_too_long(server, good):
    started = time.perf_counter()
    heard = talk(server, HEAD + b"Content-Length: 104857600\r\n\r\n")
    status, text = error_of(heard)
    assert status == 413
    assert text == "the body of the request is longer than 1048576 bytes"
    assert time.perf_counter() - started < 15


def test_100_megabytes_are_refused_while_they_come(server, good):
    heard = talk(server, HEAD + b"Content-Length: 104857600\r\n\r\n", *[b"7" * 2**20] * 100)
    # What is still on its way may reset the connection before the answer is read; if it is read
    # it is the right one.
    if heard:
        assert error_of(heard)[0] == 413


def test_a_body_without_a_length_that_does_not_end(server, good):
    chunk = b"10000\r\n" + b"7" * 65536 + b"\r\n"
    heard = talk(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 64)
    if heard:
        assert error_of(heard)[0] == 413


def test_a_half_sent_request(server, good):
    heard = talk(server, HEAD + b'Content-Length: 100\r\n\r\n{"inputs"')
    assert error_of(heard) == (408, "the body did not arrive within 1 seconds")


def test_a_client_that_goes_away_in_the_middle(server, good):
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"inputs"')


def test_slow_clients(server, good):
    """Eight that send a byte now and then, at the same time; each is told that it was too slow."""
    heard: list[bytes] = []

    def drip() -> None:
        parts = [HEAD + b"Content-Length: 20\r\n\r\n", *[b"1"] * 8]
        heard.append(talk(server, *parts, pause=0.4))

    threads = [threading.Thread(target=drip) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [error_of(one)[0] for one in heard if one] == [408] * len([one for one in heard if one])
    assert any(heard)


def test_a_client_that_never_says_anything(server, good):
    started = time.perf_counter()
    assert talk(server, b"") == b""
    assert 0.8 < time.perf_counter() - started < 12
    assert talk(server, b"POST /v1/mo") == b""


def test_what_is_no_http(server, good):
    heard = talk(server, b"\x16\x03\x01\x02\x00garbage\r\n\r\n")
    assert heard.startswith(b"HTTP/1.")
    assert heard.split()[1] == b"400"


def test_one_connection_too_many(server):
    idle = []
    try:
        for _ in range(24):
            idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=20))
        deadline = time.monotonic() + 10
        refused = (0, "")
        while refused[0] != 503 and time.monotonic() < deadline:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one_more:
                one_more.settimeout(0.5)
                try:
                    heard = one_more.recv(2**16)
                except TimeoutError:
                    continue
                if heard:
                    refused = error_of(heard)
        assert refused == (503, "the server has as many connections as it takes")
    finally:
        for client in idle:
            client.close()
    while post(server, instances())[0] != 200:
        assert time.monotonic() < deadline + 10
        time.sleep(0.05)


def test_more_requests_than_there_are_places(toy):
    """One place: while it is taken by a call that takes long, the next is told to come again."""
    from keras_seq.serving import Options, serving

    options = Options(port=0, grpc_port=0, max_requests=1)
    with serving([toy], options) as server:
        answers = []
        body = {"signature_name": "slow", "inputs": {"rounds": 30_000}}
        thread = threading.Thread(target=lambda: answers.append(post(server, body)))
        thread.start()
        wait_until_one_is_under_way(server)
        refused = post(server, instances())
        thread.join()
        text = "1 requests are being answered, and the server takes no more: try again"
        assert refused == (503, {"error": text})
        assert answers[0][0] == 200
        assert post(server, instances())[0] == 200
