"""The service over gRPC, in plain HTTP/2 on loopback."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.emulators.dataproc.errors import ApiError, Cut, Hang
from tests.emulators.dataproc.service import Service

_THREADS = 128
"""Calls at the same time; those that hang by rule hold one each."""


def serve(service: Service, port: int) -> tuple[grpc.Server, int]:
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="grpc"),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 << 20)],
    )
    for name, verbs in service.by_service.items():
        handlers = {verb: _handler(service, verb, request) for verb, (request, _) in verbs.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, port


def _handler(service: Service, verb: str, request_class: Any) -> grpc.RpcMethodHandler:
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return service.call(verb, request)
        except ApiError as error:
            context.abort(error.status, error.message)
        except Hang as hang:
            _hang(context, hang.seconds)
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline expired before operation could complete.")
        except Cut:
            cut(context.peer())
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=request_class.FromString, response_serializer=lambda pb: pb.SerializeToString()
    )


def _hang(context: grpc.ServicerContext, seconds: float) -> None:
    given_up = threading.Event()
    if context.add_callback(given_up.set):
        given_up.wait(seconds)


def cut(peer: str) -> None:
    """Close the TCP connection from that peer ("ipv4:127.0.0.1:50012"), under gRPC's own feet."""
    port = int(peer.rsplit(":", 1)[1])
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as twin:
                if twin.type == socket.SOCK_STREAM and twin.getpeername()[1] == port:
                    twin.shutdown(socket.SHUT_RDWR)
        except (OSError, IndexError, TypeError):
            continue
    time.sleep(0.05)
