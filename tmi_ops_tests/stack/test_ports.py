from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tmi_ops.stack import ports as stack_module
from tmi_ops.stack.ports import LOOPBACK, choose_ports, free_ports, is_free, seaweed_ports, stack_ports


def test_chosen_ports_are_all_different_and_free() -> None:
    ports = choose_ports().every()
    assert len(set(ports)) == len(ports)
    assert all(is_free(port) for port in ports)


def test_ports_are_kept_as_long_as_all_of_them_are_free(tmp_path: Path) -> None:
    record = tmp_path / "ports.json"
    first = stack_ports(record)
    assert stack_ports(record) == first
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, first.postgres))
        stranger.listen()
        second = stack_ports(record)
    assert second.postgres != first.postgres
    assert stack_ports(record) == second


def test_a_damaged_record_of_ports_is_replaced(tmp_path: Path) -> None:
    record = tmp_path / "ports.json"
    record.write_text("{")
    assert stack_ports(record) == stack_ports(record)


def test_ports_at_which_another_users_seaweedfs_left_a_socket_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def drawn(count: int) -> list[int]:
        ports = free_ports(count)
        if count == 8 and not left:
            left.append(ports[3])
            (tmp_path / f"seaweedfs-s3-{ports[3]}.sock").touch()
        return ports

    monkeypatch.setattr(stack_module, "_SOCKETS", tmp_path)
    monkeypatch.setattr(stack_module, "free_ports", drawn)
    chosen = seaweed_ports()
    assert len(left) == 1
    assert left[0] not in (*chosen.http, *chosen.grpc)
