from __future__ import annotations

import socket
from pathlib import Path

from tmi_ops.stack.ports import LOOPBACK, choose_ports, is_free, stack_ports


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
