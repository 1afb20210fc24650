"""Seconds to bring n bytes to a device or from it, as the mean of a TCP connection; all devices at once.

Four parts. Retransmission: of N packets, N p / (1 - p) are sent again, so the line carries n / (1 - p)
bytes and headers. The cap of random loss: rate <= MSS / RTT * sqrt(3 / (2 p)) (Mathis et al., CCR 1997).
Slow start from 10 segments (RFC 6928), doubling: while a window is smaller than what the line holds, the
sender waits for its acknowledgement (the static-window model of Kurose and Ross, "Computer Networking").
And one round trip for the request. Not modelled: timeouts, queues, other traffic, the variance. Outages are
the trace's (`traces.Trace.finish`): a transfer rests while the device is away.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cdc_flower.fleet.cost.profiles import Devices, Profile

SEGMENT = 1460  # bytes of payload in a packet (MSS of Ethernet)
HEADER = 40  # bytes of TCP and IPv4 in each
INITIAL_WINDOW = 10 * SEGMENT
DOUBLINGS = 40  # 10 segments doubled so often are 16 PB: no line holds more


def goodput(bandwidth: Any, rtt: Any, loss: Any) -> Any:
    """Bytes of payload a second once the connection is at speed.

    Args:
        bandwidth: bit/s, float or (n,).
        rtt: s.
        loss: share of packets, 0 <= loss < 1.
    """
    line = bandwidth / 8 * (1 - loss) * SEGMENT / (SEGMENT + HEADER)
    with np.errstate(divide="ignore", over="ignore"):  # without loss there is no cap
        cap = SEGMENT / rtt * np.sqrt(1.5 / np.asarray(loss, np.float64))
    return np.minimum(line, cap)


def transfer_seconds(size: Any, bandwidth: Any, rtt: Any, loss: Any) -> Any:
    """Seconds from the request to the last byte; 0 for 0 bytes.

    Args:
        size: bytes, number or (n,), not negative.
        bandwidth: bit/s, float or (n,).
        rtt: s.
        loss: share of packets, 0 <= loss < 1.

    Returns:
        float64, the shape the arguments broadcast to.
    """
    size, rtt = np.asarray(size, np.float64), np.asarray(rtt, np.float64)
    rate = goodput(bandwidth, rtt, loss)
    time = rtt + size / rate
    for doubling in range(DOUBLINGS):
        window = INITIAL_WINDOW * 2.0**doubling
        stall = rtt - window / rate  # from the window's last byte to the acknowledgement of its first
        waits = (stall > 0) & (size > 2 * window - INITIAL_WINDOW)  # more than the windows up to here carry
        if not waits.any():
            break
        time = time + np.where(waits, stall, 0.0)
    return np.where(size > 0, time, 0.0)[()]


def down_seconds(on: Profile | Devices, size: Any) -> Any:
    """Seconds to bring `size` bytes from the cloud to the device: float, or (n,) float64."""
    return transfer_seconds(size, on.down_bw, on.rtt, on.loss)


def up_seconds(on: Profile | Devices, size: Any) -> Any:
    """Seconds to bring `size` bytes from the device to the cloud: float, or (n,) float64."""
    return transfer_seconds(size, on.up_bw, on.rtt, on.loss)
