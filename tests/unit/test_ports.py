"""Ports: chosen once, remembered, never one that an outgoing connection could take."""

from __future__ import annotations

import socket

import pytest

from onecollector.local.ports import PREFERRED, PortTaken, any_free_port, choose_ports, port_pool


def test_a_free_port_is_none_that_the_kernel_gives_to_connections() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        given = probe.getsockname()[1]
    assert given not in port_pool()
    assert all(any_free_port(set()) in port_pool() for _ in range(20))


def test_what_was_chosen_stays_and_differs_from_part_to_part() -> None:
    chosen = choose_ports({}, {}, usual_first=False)
    assert set(chosen) == set(PREFERRED)
    assert len({*chosen.values(), *PREFERRED.values()}) == 2 * len(PREFERRED)
    assert choose_ports({}, chosen) == chosen


def test_a_usual_port_that_is_taken_is_passed_over_and_one_of_the_settings_is_refused() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", any_free_port(set())))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            choose_ports({"agent": port}, {})
